"""What a smaller type of what attention remembers does to the answers of a real model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.models.kyutai.model import load
from rtc_server.models.kyutai.options import KvDtype, KyutaiOptions
from tests.conftest import need_commands
from tests.models.test_pico import QUESTIONS
from tests.support.script import spoken

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def questions() -> npt.NDArray[np.float32]:
    """Float32, shape [frames, rows, 1920]."""
    need_commands("espeak-ng")
    pcm = np.zeros((len(QUESTIONS), 65 * FRAME_SAMPLES), dtype=np.float32)
    for row, question in zip(pcm, QUESTIONS, strict=True):
        said = spoken(question)
        row[5 * FRAME_SAMPLES :][: len(said)] = said
    return pcm.reshape(len(QUESTIONS), 65, FRAME_SAMPLES).swapaxes(0, 1)


def answers(kv_dtype: KvDtype, questions: npt.NDArray[np.float32]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """What pico writes, and all of its tokens."""
    model = load(KyutaiOptions("pico", len(QUESTIONS), kv_dtype=kv_dtype, threads=2))
    everybody = np.ones(len(QUESTIONS), dtype=np.bool_)
    text, tokens = [""] * len(QUESTIONS), []
    for frame in questions:
        for row, output in enumerate(model.step(frame, everybody)):
            assert output is not None
            text[row] += output.text
        tokens.append(model.last_tokens)
    model.close()
    return [each.strip() for each in text], np.stack(tokens)


@pytest.fixture(scope="module")
def exact(questions: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    return answers("auto", questions)[1]


@pytest.mark.parametrize(("kv_dtype", "equal"), [("bfloat16", 0.98), ("float8", 0.95)])
def test_pico_answers_as_it_would_have(
    kv_dtype: KvDtype, equal: float, questions: npt.NDArray[np.float32], exact: npt.NDArray[np.int64]
) -> None:
    """Eight right answers, and nearly all of the tokens, voice included, are those of float32: when this was written,
    all were."""
    text, tokens = answers(kv_dtype, questions)
    assert text == list(QUESTIONS.values())
    assert (tokens == exact).mean() >= equal
