"""The bundled model that transcribes Portuguese: it writes what voices say that its training never heard, and when.

How many words are wrong is for ``python -m training.dictation --language pt``; here is what a good checkpoint does, and
that what is said in one language of a translated room is recognised in the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from lab.pico import portuguese
from lab.speech import espeak
from lab.speech.spoken import Voice
from rtc_server import bundled
from rtc_server.audio import MODEL_RATE_HZ, FloatArray, silence
from rtc_server.models.kyutai import model as kyutai
from rtc_server.models.kyutai.model import KyutaiModel
from rtc_server.models.kyutai.options import KyutaiOptions
from tests.conftest import need_commands
from training import sounds
from training.dictation import Reading, Score, read_out, score, written

READERS = 8
MARGIN = silence(MODEL_RATE_HZ // 2)


def loaded(name: str) -> Iterator[KyutaiModel]:
    need_commands("espeak-ng")
    model = kyutai.load(KyutaiOptions(model=name, slots=READERS, threads=2))
    model.warm_up()
    yield model
    model.close()


@pytest.fixture(scope="module")
def model() -> Iterator[KyutaiModel]:
    yield from loaded(bundled.PICO_STT_PT)


@pytest.fixture(scope="module")
def english() -> Iterator[KyutaiModel]:
    yield from loaded(bundled.PICO_STT)


def texts(model: KyutaiModel, clips: Sequence[FloatArray]) -> list[str]:
    """What ``model`` writes of each of ``clips``."""
    wrote = []
    for first in range(0, len(clips), READERS):
        some = clips[first : first + READERS]
        silent = [MARGIN] * (READERS - len(some))
        readings = [Reading(np.concatenate((MARGIN, pcm)), ()) for pcm in (*some, *silent)]
        wrote += [" ".join(word.text for word in words) for words in written(model, readings)[: len(some)]]
    return wrote


@pytest.mark.parametrize(("condition", "most"), [("clean", 0.12), ("lossy", 0.15), ("telephone", 0.16)])
def test_it_writes_what_is_read_out(model: KyutaiModel, condition: str, most: float) -> None:
    """The limits leave room: what espeak-ng says depends on what it said before in the same process."""
    readings = [read_out(4, condition, seed, language="pt") for seed in range(100, 100 + READERS)]  # type: ignore[arg-type]
    wrote = written(model, readings)
    made = sum((score(one.words, words) for one, words in zip(readings, wrote, strict=True)), Score(0, 0, ()))
    assert made.words > 100
    assert made.errors / made.words <= most
    off = sorted(abs(value) for value in made.starts_s)
    assert off[len(off) // 2] < 0.1, "of the time of a word, the median"
    assert off[int(len(off) * 0.95)] < 0.4


def test_silence_and_noise_are_no_words(model: KyutaiModel) -> None:
    random = np.random.default_rng(11)
    count = 10 * MODEL_RATE_HZ
    levels_db = [-60, -50, -40, -35, -30, -25]
    noises = [sounds.noise(count, random) * np.float32(10 ** (level / 20)) for level in levels_db]
    clips = [silence(count), (random.standard_normal(count) * 1e-4).astype(np.float32), *noises]
    assert texts(model, clips) == [""] * len(clips)


@pytest.mark.parametrize("variant", ["m3", "f2"])
def test_both_sides_of_a_translated_pair_are_recognised(model: KyutaiModel, english: KyutaiModel, variant: str) -> None:
    sides = ((english, "en-us", 0), (model, "pt-br", 1))
    for side, accent, which in sides:
        said = [pair[which] for pair in portuguese.PAIRS]
        clips = [espeak.speak(text, Voice(f"{accent}+{variant}")).pcm for text in said]
        wrote = [text.lower() for text in texts(side, clips)]
        # Where a sentence begins within a frame may cost a word of one or two.
        assert sum(one == other for one, other in zip(wrote, said, strict=True)) >= len(said) - 3, wrote
