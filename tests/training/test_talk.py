"""Others' talk is as loud as across a room, of any length that is asked for, and made of few voices once."""

from __future__ import annotations

import random

import numpy as np
import pytest

from lab.speech.spoken import Spoken
from rtc_server.audio import MODEL_RATE_HZ, level_dbfs
from tests.conftest import need_commands
from training import talk
from training.reading import Reader
from training.talk import Talk

LONGEST = 4 * MODEL_RATE_HZ


class Crowd:
    """Each of them says one tone, for half a second at a time."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> talk.Speaking:
        self.asked += 1
        seconds = np.arange(MODEL_RATE_HZ // 2) / MODEL_RATE_HZ
        pcm = (0.3 * np.sin(2 * np.pi * 150 * self.asked * seconds)).astype(np.float32)
        return lambda: Spoken(pcm, (), ())


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


@pytest.fixture
def talking(crowd: Crowd) -> Talk:
    return Talk(crowd, LONGEST, random.Random(3), np.random.default_rng(3))


@pytest.mark.parametrize("count", [1, MODEL_RATE_HZ, LONGEST])
def test_it_is_as_long_as_it_should_be(talking: Talk, count: int) -> None:
    assert talking.some(count).shape == (count,)


def test_it_is_as_loud_as_across_a_room(talking: Talk) -> None:
    levels = [level_dbfs(talking.some(LONGEST)) for _ in range(60)]
    assert -62.5 < min(levels) < -58
    assert -38 < max(levels) < -32.5


def test_it_is_made_once(talking: Talk, crowd: Crowd) -> None:
    for _ in range(20):
        talking.some(MODEL_RATE_HZ)
    assert crowd.asked == 12


def test_of_what_others_say_a_reading_has_no_word() -> None:
    """Where no one but they speaks, there is sound, and nothing to be written."""
    need_commands("espeak-ng")
    reader = Reader("pt", 4)
    silent = [scene for scene in (reader.scene() for _ in range(60)) if not scene.heard]
    assert len(silent) >= 3
    assert all(np.abs(reader.heard(scene)).max() > 0 for scene in silent)
    assert not any(scene.words() for scene in silent)
