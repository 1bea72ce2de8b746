"""The bundled model converses: it hears what is said, answers it by voice and in words, stops and goes on.

Voices are ones that its training never heard. How often it is right is for ``python -m training.evaluate``; here are
questions that a good checkpoint gets right, whatever else is in the batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from lab.pico.recogniser import Recogniser
from rtc_server.audio import FRAME_SAMPLES, FloatArray
from rtc_server.bundled import PACKAGE
from rtc_server.models.kyutai import model as kyutai
from rtc_server.models.kyutai.model import KyutaiModel
from rtc_server.models.kyutai.options import KyutaiOptions
from tests.conftest import need_commands
from tests.support.script import VOICE, need_voices, spoken

pytestmark = pytest.mark.slow

DIRECTORY = PACKAGE / "models" / "pico"
MEGABYTE = 1_000_000
QUESTIONS = {
    "what is three plus four": "that is seven",
    "what is your name": "my name is pico",
    "how are you": "i am fine thank you",
    "what is the opposite of hot": "cold",
    "what day comes after monday": "tuesday",
    "what colour is the sky": "blue",
    "can fish swim": "yes",
    "repeat banana": "banana",
}
OF_PEOPLE = {
    "what is five plus five": "that is ten",
    "what is nine minus five": "that is four",
}
PEOPLE = ("flite:rms", "flite:kal16", "festival:kdl")
AUDIBLE = 0.01


@pytest.fixture(scope="module")
def model() -> Iterator[KyutaiModel]:
    need_commands("espeak-ng")
    loaded = kyutai.load(KyutaiOptions(model="pico", slots=len(QUESTIONS), threads=2))
    loaded.warm_up()
    yield loaded
    loaded.close()


class Talk:
    """What was heard and written in one row: ``words`` with the frame of each, ``voice`` frame by frame."""

    def __init__(self) -> None:
        self.words: list[tuple[int, str]] = []
        self.voice: list[FloatArray] = []

    @property
    def text(self) -> str:
        return "".join(word for _, word in self.words).strip()

    @property
    def pcm(self) -> FloatArray:
        return np.concatenate(self.voice)


def talk(
    model: KyutaiModel, scripts: Sequence[Sequence[tuple[int, str]]], frames: int, voices: Sequence[str] = ()
) -> list[Talk]:
    """Each row hears its script: at which frame what is said; in the row's voice, where there is one."""
    pcm = np.zeros((model.info.slots, frames * FRAME_SAMPLES), dtype=np.float32)
    for row, script in enumerate(scripts):
        for at, text in script:
            said = spoken(text, voices[row] if voices else VOICE)
            pcm[row, at * FRAME_SAMPLES : at * FRAME_SAMPLES + len(said)] += said
    active = np.arange(model.info.slots) < len(scripts)
    model.reset(active)
    talks = [Talk() for _ in scripts]
    for frame in range(frames):
        outputs = model.step(pcm[:, frame * FRAME_SAMPLES : (frame + 1) * FRAME_SAMPLES], active)
        for one, output in zip(talks, outputs, strict=False):
            assert output is not None
            if output.text:
                one.words.append((frame, output.text))
            one.voice.append(np.zeros(FRAME_SAMPLES, np.float32) if output.pcm is None else output.pcm)
    return talks


@pytest.fixture(scope="module")
def answers(model: KyutaiModel) -> list[Talk]:
    return talk(model, [[(5, question)] for question in QUESTIONS], frames=65)


def test_eight_questions_at_once_get_eight_answers(answers: list[Talk]) -> None:
    assert [answer.text for answer in answers] == list(QUESTIONS.values())


def test_what_begins_with_the_first_frame_is_answered(model: KyutaiModel) -> None:
    """A program sends a file at once, and one who speaks does so on in the model that takes another's place."""
    asked = talk(model, [[(0, question)] for question in QUESTIONS], frames=60)
    assert [answer.text for answer in asked] == list(QUESTIONS.values())
    (greeted,) = talk(model, [[(0, "hello")]], frames=40)
    assert greeted.text == "hello nice to talk to you"


def test_voices_made_from_people_s_are_answered_as_well(model: KyutaiModel) -> None:
    """Of two synthesizers other than espeak-ng, in phrases that it understands best by them."""
    need_voices(*PEOPLE)
    asked = [(voice, question) for voice in PEOPLE for question in OF_PEOPLE]
    talks = talk(model, [[(5, question)] for _, question in asked], 65, [voice for voice, _ in asked])
    got = [(one.text, *what) for one, what in zip(talks, asked, strict=True)]
    assert sum(text == OF_PEOPLE[question] for text, _, question in got) >= len(asked) - 1, got


def test_its_voice_says_what_it_writes(answers: list[Talk]) -> None:
    recogniser = Recogniser()
    heard = [recogniser.hear(answer.pcm) for answer in answers]
    agree = sum(one == answer.text for one, answer in zip(heard, answers, strict=True))
    assert agree >= 6, heard  # of the true voice, the recogniser understands nine in ten


def test_an_answer_does_not_depend_on_who_else_asks(model: KyutaiModel, answers: list[Talk]) -> None:
    (alone,) = talk(model, [[(5, "what is three plus four")]], frames=65)
    assert alone.text == answers[0].text
    np.testing.assert_allclose(alone.pcm, answers[0].pcm, atol=1e-3)


def test_it_counts_evenly_stops_when_told_and_goes_on_where_it_was(model: KyutaiModel) -> None:
    (count,) = talk(model, [[(3, "count to nine"), (50, "stop"), (80, "go on")]], frames=150)
    assert count.text == "one two three four five six seven eight nine"
    frames = [frame for frame, _ in count.words]
    gaps = np.diff(frames)
    (pause,) = np.flatnonzero(gaps > 10)
    assert frames[pause] < 60
    assert frames[pause + 1] > 80
    assert set(np.delete(gaps, pause).tolist()) <= {7, 8, 9}
    stop_ends = 50 + len(spoken("stop")) / FRAME_SAMPLES
    quiet = count.voice[int(np.ceil(stop_ends + 0.6 / 0.08)) : 80]
    assert np.abs(np.concatenate(quiet)).max() < AUDIBLE


def test_it_says_that_it_did_not_understand(model: KyutaiModel) -> None:
    (answer,) = talk(model, [[(4, "the captain sold a wooden boat")]], frames=70)
    assert answer.text == "sorry i did not understand that"


def test_it_is_silent_in_silence_and_in_noise(model: KyutaiModel) -> None:
    model.reset(np.ones(model.info.slots, dtype=np.bool_))
    noise = np.random.default_rng(0).standard_normal((model.info.slots, 100 * FRAME_SAMPLES)).astype(np.float32)
    levels = np.array([0.0, 0.001, 0.003, 0.01, 0.03, 0.05, 0.07, 0.1], dtype=np.float32)
    on = np.ones(model.info.slots, dtype=np.bool_)
    for frame in range(100):
        pcm = noise[:, frame * FRAME_SAMPLES : (frame + 1) * FRAME_SAMPLES] * levels[:, None]
        for output in model.step(pcm, on):
            assert output is not None
            assert output.text == ""
            assert output.pcm is None or np.abs(output.pcm).max() < AUDIBLE


def test_all_of_it_is_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in DIRECTORY.iterdir()) <= 16 * MEGABYTE


def test_it_says_nothing_that_moshi_would_not() -> None:
    """The moshi package's own configuration: nothing in it is ours, so nothing in the engine has to be."""
    config = json.loads((DIRECTORY / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "moshi"
    assert config["n_q"] > config["dep_q"] > 0
    assert max(config["delays"]) == 1
