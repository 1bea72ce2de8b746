"""The playout buffer, in virtual time: what is pushed comes out paced, and delay that has grown is given back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtc_server import audio
from rtc_server.audio import FRAME_MS, FRAME_SAMPLES, PACKET_MS, PACKET_SAMPLES
from rtc_server.media.playout import MAX_DEPTH_MS, PlayoutBuffer
from tests.support.signals import FloatArray, largest_step, sine, sine_step

MARGIN_MS = 40.0
FADE_SAMPLES = 240
"""10 ms: how long a seam may take."""


class Conversation:
    """A model that makes a frame every 80 ms, as late as it is told, and a sender that pulls every 20 ms.

    The voice is one endless tone, so that every cut and every gap shows.
    """

    def __init__(self, margin_ms: float = MARGIN_MS, hz: float = 331.0, amplitude: float = 0.5) -> None:
        self.buffer = PlayoutBuffer(margin_ms)
        self.now_ms = 0
        self.pushed = 0
        self.out: list[FloatArray] = []
        self.voiced: list[bool] = []
        self.depths_ms: list[float] = []
        self._tone = (hz, amplitude)
        self._due_ms: list[int] = []
        self._made = 0

    def frame(self) -> FloatArray:
        """The next 80 ms of the tone."""
        hz, amplitude = self._tone
        at = np.arange(self._made * FRAME_SAMPLES, (self._made + 1) * FRAME_SAMPLES)
        self._made += 1
        return (amplitude * np.sin(2 * np.pi * hz * at / audio.MODEL_RATE_HZ)).astype(np.float32)

    def push(self, frames: int = 1) -> None:
        for _ in range(frames):
            self.buffer.push(self.frame(), self.now_ms / 1000)
            self.pushed += FRAME_SAMPLES

    def run(self, seconds: float, late_ms: Callable[[], float] = lambda: 0.0) -> None:
        """Let time pass. ``late_ms`` is asked once a frame; frames never overtake each other."""
        end_ms = self.now_ms + round(seconds * 1000)
        while self.now_ms < end_ms:
            if self.now_ms % FRAME_MS == 0:
                earliest = self._due_ms[-1] if self._due_ms else 0
                self._due_ms.append(max(earliest, self.now_ms + round(late_ms())))
            while self._due_ms and self._due_ms[0] <= self.now_ms:
                self._due_ms.pop(0)
                self.push()
            self.pull()
            self.now_ms += PACKET_MS

    def pull(self) -> tuple[FloatArray, bool]:
        pcm, voiced = self.buffer.pull(PACKET_SAMPLES, self.now_ms / 1000)
        assert pcm.shape == (PACKET_SAMPLES,)
        self.out.append(pcm)
        self.voiced.append(voiced)
        self.depths_ms.append(self.buffer.depth_ms)
        return pcm, voiced

    def floor_ms(self, seconds: float) -> float:
        """The least that was left after a pull in the last ``seconds``: delay that was not needed."""
        return min(self.depths_ms[-round(seconds * 1000 / PACKET_MS) :])

    def voice(self) -> FloatArray:
        return np.concatenate([pcm for pcm, voiced in zip(self.out, self.voiced, strict=True) if voiced])


def pulls(buffer: PlayoutBuffer, count: int) -> Iterator[tuple[FloatArray, bool]]:
    return (buffer.pull(PACKET_SAMPLES, 0.0) for _ in range(count))


def test_an_empty_buffer_gives_silence_and_counts_nothing() -> None:
    buffer = PlayoutBuffer(MARGIN_MS)
    for pcm, voiced in pulls(buffer, 10):
        assert pcm.shape == (PACKET_SAMPLES,)
        assert not pcm.any()
        assert not voiced
    assert (buffer.underruns, buffer.depth_samples) == (0, 0)


@pytest.mark.parametrize("margin_ms", [0, 20, 40, 100])
def test_a_voice_that_starts_is_given_the_margin(margin_ms: int) -> None:
    """So much silence, then the very samples that were pushed, 20 ms a time."""
    buffer = PlayoutBuffer(margin_ms)
    frame = sine(FRAME_SAMPLES)
    buffer.push(frame, 0.0)
    assert buffer.depth_ms == margin_ms + FRAME_MS
    quiet = list(pulls(buffer, margin_ms // PACKET_MS))
    assert not any(voiced or pcm.any() for pcm, voiced in quiet)
    loud = list(pulls(buffer, 4))
    assert all(voiced for _, voiced in loud)
    np.testing.assert_array_equal(np.concatenate([pcm for pcm, _ in loud]), frame)
    assert buffer.depth_samples == 0


def test_a_model_in_time_is_played_without_a_gap() -> None:
    talk = Conversation()
    talk.run(60)
    assert talk.buffer.underruns == 0
    assert talk.buffer.dropped_samples == 0
    assert largest_step(talk.voice()) <= 1.01 * sine_step(331.0)
    assert talk.voiced.index(True) == MARGIN_MS / PACKET_MS
    assert all(talk.voiced[2:])


@settings(deadline=None)
@given(late_ms=st.lists(st.floats(0, MARGIN_MS), min_size=1, max_size=50), margin_ms=st.just(MARGIN_MS))
def test_lateness_within_the_margin_is_not_heard(late_ms: list[float], margin_ms: float) -> None:
    """Once the first frame has come in time, each further one may be as late as the margin."""
    talk = Conversation(margin_ms)
    lateness = iter([0.0, *late_ms])
    talk.run(FRAME_MS / 1000 * len(late_ms), lambda: next(lateness, 0.0))
    assert talk.buffer.underruns == 0
    assert all(talk.voiced[2:])


def test_running_dry_is_counted_once_for_each_time() -> None:
    talk = Conversation()
    talk.push()
    for _ in range(20):
        talk.pull()
    assert talk.buffer.underruns == 1
    talk.push()
    for _ in range(20):
        talk.pull()
    assert talk.buffer.underruns == 2


def test_a_late_frame_is_played_as_soon_as_it_comes() -> None:
    """No extra hold: what came late has delayed the voice already."""
    talk = Conversation()
    talk.push()
    while talk.buffer.underruns == 0:
        talk.pull()
    talk.push()
    _, voiced = talk.pull()
    assert voiced


@pytest.mark.parametrize(("amplitude", "most_s"), [(0.0, 2.2), (0.5, 4.2)], ids=["silence", "speech"])
@pytest.mark.parametrize("extra_frames", [1, 2, 4])
def test_reserve_that_nobody_needs_is_given_back(amplitude: float, most_s: float, extra_frames: int) -> None:
    """Within one window when it is cut from silence, within two from speech, and never at once."""
    talk = Conversation(amplitude=amplitude)
    talk.run(10)
    talk.push(extra_frames)
    talk.run(1)
    assert talk.floor_ms(0.5) == pytest.approx(MARGIN_MS + extra_frames * FRAME_MS, abs=1)
    talk.run(most_s)
    assert talk.floor_ms(0.1) <= MARGIN_MS + 2 * FRAME_MS
    talk.run(1)
    assert MARGIN_MS <= talk.floor_ms(0.5) <= MARGIN_MS + 30
    assert talk.buffer.underruns == 0


@pytest.mark.parametrize("margin_ms", [0.0, 20.0, 40.0, 100.0])
def test_giving_back_leaves_the_margin(margin_ms: float) -> None:
    """The cut itself never makes the voice run dry, and what is left lasts for the lateness it is meant for."""
    talk = Conversation(margin_ms)
    talk.run(1)
    talk.push(2)
    talk.run(10)
    assert talk.buffer.dropped_samples > 0
    assert talk.buffer.underruns == 0
    assert all(pcm.any() for pcm in talk.out[round(margin_ms / PACKET_MS) :])
    assert talk.floor_ms(2) >= margin_ms


@pytest.mark.parametrize("hz", [110.0, 217.0, 331.0, 440.0, 997.0])
@pytest.mark.parametrize("extra_frames", [1, 3, 9], ids=["trimmed", "trimmed more", "overflowed"])
def test_a_cut_has_no_click(hz: float, extra_frames: int) -> None:
    """Across the seam a tone never moves faster than itself and the cross-fade together."""
    talk = Conversation(hz=hz)
    talk.run(1)
    talk.push(extra_frames)
    talk.run(6)
    assert talk.buffer.dropped_samples > 0
    assert all(talk.voiced[2:])
    assert largest_step(talk.voice()) <= sine_step(hz) + 2 * 0.5 / (FADE_SAMPLES - 1) + 1e-4


@settings(deadline=None)
@given(
    margin_ms=st.floats(0, 500),
    moves=st.lists(st.one_of(st.integers(0, 30_000), st.just("pull"), st.just("clear")), max_size=40),
)
def test_depth_is_bounded_whatever_is_pushed(margin_ms: float, moves: list[int | str]) -> None:
    """Blocks of any size, margins of any size: never more than MAX_DEPTH_MS, and every sample is accounted for."""
    buffer = PlayoutBuffer(margin_ms)
    for move in moves:
        if move == "pull":
            pcm, _ = buffer.pull(PACKET_SAMPLES, 0.0)
            assert pcm.shape == (PACKET_SAMPLES,)
        elif move == "clear":
            buffer.clear()
        else:
            assert isinstance(move, int)
            buffer.push(audio.silence(move), 0.0)
        assert 0 <= buffer.depth_ms <= MAX_DEPTH_MS


@pytest.mark.parametrize("block", [FRAME_SAMPLES, 5 * FRAME_SAMPLES, 20 * FRAME_SAMPLES])
def test_an_overflow_keeps_the_newest(block: int) -> None:
    """A model that delivers too much at once has been away: its last words are kept, the oldest dropped."""
    buffer = PlayoutBuffer(MARGIN_MS)
    whole = sine(40 * FRAME_SAMPLES, 217.0)
    for at in range(0, whole.size, block):
        buffer.push(whole[at : at + block], 0.0)
    assert buffer.dropped_samples > 0
    heard = [pcm for pcm, voiced in pulls(buffer, 200) if voiced]
    assert sum(pcm.size for pcm in heard) == whole.size - buffer.dropped_samples
    np.testing.assert_array_equal(np.concatenate(heard)[-FRAME_SAMPLES:], whole[-FRAME_SAMPLES:])


def test_clearing_is_immediate_and_the_next_voice_starts_afresh() -> None:
    """The very next packet is silent, that is no underrun, and the margin is given again."""
    talk = Conversation()
    talk.run(1)
    talk.push(3)
    talk.buffer.clear()
    assert talk.buffer.depth_samples == 0
    pcm, voiced = talk.pull()
    assert not voiced
    assert not pcm.any()
    assert talk.buffer.underruns == 0
    talk.push()
    assert [talk.pull()[1] for _ in range(6)] == [False, False, True, True, True, True]


def test_clearing_while_the_margin_is_held_forgets_it() -> None:
    buffer = PlayoutBuffer(MARGIN_MS)
    buffer.push(sine(FRAME_SAMPLES), 0.0)
    buffer.clear()
    assert buffer.depth_samples == 0
    assert not any(voiced for _, voiced in pulls(buffer, 20))


def test_every_sample_is_played_or_counted_as_dropped() -> None:
    talk = Conversation()
    chance = random.Random(7)
    talk.run(120, lambda: chance.choice([0, 0, 0, 10, 60, 400]))
    played = sum(int(np.count_nonzero(pcm)) for pcm in talk.out)
    # A sine has its zeros too.
    assert played + talk.buffer.dropped_samples + talk.buffer.depth_samples == pytest.approx(talk.pushed, abs=100)


@pytest.mark.parametrize("seed", range(6))
def test_ten_minutes_of_hiccups_leave_no_delay_for_good(seed: int) -> None:
    """A model that is late at random, now and then by a second: delay comes and goes, and stays bounded."""
    chance = random.Random(seed)

    def late_ms() -> float:
        dice = chance.random()
        if dice < 0.002:
            return chance.uniform(300, 1500)
        return chance.uniform(0, 120) if dice < 0.1 else chance.uniform(0, 15)

    talk = Conversation()
    talk.run(600, late_ms)
    assert talk.buffer.underruns > 0, "the model was not late enough to test anything"
    assert max(talk.depths_ms) <= MAX_DEPTH_MS
    minute = 60_000 // PACKET_MS
    means = [float(np.mean(talk.depths_ms[at : at + minute])) for at in range(0, len(talk.depths_ms), minute)]
    assert max(means) <= MARGIN_MS + 3 * FRAME_MS
    assert talk.voiced.count(True) >= 0.95 * len(talk.voiced)
    talk.run(6)  # in time from here on
    assert talk.floor_ms(1) <= MARGIN_MS + 30
