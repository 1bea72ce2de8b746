"""An independent recogniser tells the model's replies apart."""

from __future__ import annotations

import numpy as np
import pytest

from lab.pico import own_voice
from lab.pico.recogniser import Recogniser, ceiling, count, differing, own
from rtc_server.audio import MODEL_RATE_HZ
from tests.conftest import need_commands


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    need_commands("espeak-ng")
    return Recogniser()


def test_the_voice_that_the_model_learns_from_is_understood(recogniser: Recogniser) -> None:
    replies = {
        "that is seven": np.concatenate((own_voice.part("that is").pcm, own_voice.part("seven").pcm)),
        "my name is pico": own_voice.part("my name is Pico").pcm,
        "one two three four": count(["one", "two", "three", "four"]),
    }
    assert differing(recogniser, replies.items()) == []


def test_only_what_the_training_teaches_can_be_compared() -> None:
    assert own("six seven eight") is not None
    assert own("that is twenty") is not None
    assert own("that is") is not None
    assert [own(text) for text in ("", "that is blue", "seven blue", "that is six six")] == [None] * 4


def test_the_ceiling_is_weighted_as_the_replies_are(recogniser: Recogniser) -> None:
    """The recogniser takes "hot" in the taught voice for something else."""
    assert ceiling(recogniser, ["yes", "yes", "yes", "hot"]) == 0.75


def test_another_reply_than_is_written_is_noticed(recogniser: Recogniser) -> None:
    pcm = own_voice.part("I have no clock").pcm
    assert differing(recogniser, [("i like music", pcm)]) == [("i like music", "i have no clock")]


def test_a_voice_that_is_not_intelligible_is_noticed(recogniser: Recogniser) -> None:
    """As loud, as long and of the same sounds, but backwards."""
    replies = [(text.lower(), own_voice.part(text).pcm[::-1]) for text in ("I have no clock", "apple", "two")]
    assert len(differing(recogniser, replies)) == 3


def test_silence_and_noise_are_no_reply(recogniser: Recogniser) -> None:
    noise = np.random.default_rng(1).normal(0, 0.05, MODEL_RATE_HZ).astype(np.float32)
    assert recogniser.hear(np.zeros(MODEL_RATE_HZ, dtype=np.float32)) == ""
    assert "my name is pico" not in recogniser.hear(noise)
