"""The bundled model that transcribes: it writes what voices say that its training never heard, and when.

How many words are wrong is for ``python -m training.dictation``; here is what a good checkpoint does.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rtc_server import bundled
from rtc_server.models.kyutai import model as kyutai
from rtc_server.models.kyutai.model import KyutaiModel
from rtc_server.models.kyutai.options import KyutaiOptions
from tests.conftest import need_commands
from training.dictation import Score, read_out, score, written

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
