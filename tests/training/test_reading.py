"""Words alone, to learn to write them: by people's voices as by espeak-ng's, each where it begins."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from lab.pico import phrases
from lab.speech.spoken import Spoken, joined
from rtc_server.audio import MODEL_RATE_HZ
from rtc_server.bundled import PICO, directory_of
from tests.training.test_voices import few_phrases
from training import dataset, reading
from training.bank import WORD, Bank
from training.reading import WordReader


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_phrases(tmp_path_factory.mktemp("bank"), 20)


def test_a_bank_has_words_alone(said: Path) -> None:
    stored, random_ = Bank(said), random.Random(1)
    words = {phrase.text for phrase in stored.voices["flite:rms"] if phrase.topic == WORD}
    assert 2 <= len(words) <= 15
    assert words <= set(phrases.vocabulary())
    chosen = stored.word("flite:rms", (), random_)
    assert chosen is not None
    assert chosen.text in words
    wanted = stored.word("flite:rms", [chosen.text], random_)
    assert wanted is not None
    assert wanted.text == chosen.text
    assert stored.word("flite:rms", ["never said"], random_) is None
    assert stored.word("another", (), random_) is None


def test_words_are_read_alone_and_in_a_row(said: Path) -> None:
    reader = WordReader(5, Bank(said))
    scenes = [reader.scene() for _ in range(6)]
    heard = [one.word for scene in scenes for one in scene.heard]
    assert len(heard) > 60
    assert set(heard) <= set(phrases.vocabulary()), "sentences are not read here"
    assert set(heard) & {*phrases.NUMBERS}
    assert set(heard) & {*phrases.DAYS}
    assert set(heard) & {"plus", "minus"}
    assert not any(scene.uttered for scene in scenes)
    again = WordReader(5, Bank(said))
    assert [one.word for one in again.scene().heard] == [one.word for one in scenes[0].heard]


def test_words_in_a_row_begin_where_they_are(said: Path) -> None:
    tone = np.full(MODEL_RATE_HZ // 2, 0.5, dtype=np.float32)
    made = joined([Spoken(tone, ((0.1, word),), ()) for word in ("one", "two", "three")], [0.2, 0.35])
    begins = [at for at, _ in made.words]
    assert [word for _, word in made.words] == ["one", "two", "three"]
    silences = len(made.pcm) - 3 * len(tone)
    assert silences == round(0.2 * MODEL_RATE_HZ) + round(0.35 * MODEL_RATE_HZ)
    assert begins[0] == pytest.approx(0.1)
    assert begins[2] == pytest.approx(made.duration_s - 0.4)
    assert not made.pcm[int((begins[1] - 0.1) * MODEL_RATE_HZ) - 1]


@pytest.mark.slow
def test_readings_of_words_lie_beside_conversations(said: Path, tmp_path: Path) -> None:
    """What transcribes learns from both."""
    words, sentences = tmp_path / "words", tmp_path / "sentences"
    reading.make_file(words, directory_of(PICO), "en", 1, 2, said)
    reading.make_file(sentences, directory_of(PICO), "en", 1, 2)
    made, _ = next(dataset.drawn([words, sentences], dataset.Readings, 4, 1, 0))
    assert len({id(file) for file, _ in made}) == 2
    with pytest.raises(ValueError, match=r"words, .*sentences has 4 conversations"):
        next(dataset.drawn([words, sentences], dataset.Readings, 5, 1, 0))
