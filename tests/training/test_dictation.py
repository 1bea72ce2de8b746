"""The bundled model that transcribes: it writes what voices say that its training never heard, and when.

How many words are wrong is for ``python -m training.dictation``; here is what a good checkpoint does.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from rtc_server import bundled
from rtc_server.audio import MODEL_RATE_HZ
from rtc_server.models.kyutai import model as kyutai
from rtc_server.models.kyutai.model import KyutaiModel
from rtc_server.models.kyutai.options import KyutaiOptions
from tests.conftest import need_commands
from tests.support.missing import skip_but_in_ci
from tests.training.test_voices import need_voice
from training import recordings, sounds, voices
from training.dictation import Reading, Score, read_out, right_of, score, words_alone, written, written_alone

READERS = 8


@pytest.fixture(scope="module")
def model() -> Iterator[KyutaiModel]:
    need_commands("espeak-ng")
    loaded = kyutai.load(KyutaiOptions(model=bundled.PICO_STT, slots=READERS, threads=2))
    loaded.warm_up()
    yield loaded
    loaded.close()


@pytest.mark.parametrize(("condition", "most"), [("clean", 0.06), ("lossy", 0.08), ("telephone", 0.12)])
def test_it_writes_what_is_read_out(model: KyutaiModel, condition: str, most: float) -> None:
    readings = [read_out(4, condition, seed) for seed in range(100, 100 + READERS)]  # type: ignore[arg-type]
    wrote = written(model, readings)
    made = sum((score(one.words, words) for one, words in zip(readings, wrote, strict=True)), Score(0, 0, ()))
    assert made.words > 100
    assert made.errors / made.words <= most
    off = sorted(abs(value) for value in made.starts_s)
    assert off[len(off) // 2] < 0.1, "of the time of a word, the median"
    assert off[int(len(off) * 0.95)] < 0.4


@pytest.mark.parametrize("voice", [voices.ESPEAK, "awb", "joe"])
def test_a_word_alone_is_written_as_one_in_a_sentence(model: KyutaiModel, voice: str) -> None:
    """A model that has learnt from sentences alone writes one in seven: each is taken for one that begins some."""
    if voice != voices.ESPEAK:
        need_voice(voices._NAMES[voice])
    said = words_alone(voice, 7)
    assert right_of(said, written_alone(model, said, "clean", 7)) >= 0.6 * len(said)


def test_a_persons_recorded_words_are_written(model: KyutaiModel) -> None:
    if recordings.missing():
        skip_but_in_ci(f"needs {recordings.missing()}")
    said = recordings.words()
    assert right_of(said, written_alone(model, said, "clean", 7)) >= 0.5 * len(said)


def test_noise_and_music_are_hardly_written(model: KyutaiModel) -> None:
    """Each for ten seconds. Other people's talk is for the examination alone: what espeak-ng says for it depends on
    what it said before in the same process, and of one talk nothing is written, of another much."""
    random = np.random.default_rng(7)
    made = [sounds.noise, sounds.music] * (READERS // 2)
    heard = [Reading(make(10 * MODEL_RATE_HZ, random) * np.float32(0.03), ()) for make in made]
    assert sum(map(len, written(model, heard))) <= 3
