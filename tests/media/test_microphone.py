"""The microphone's timeline, in virtual time: the model hears 12.5 frames a second, whatever arrives."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtc_server import audio
from rtc_server.audio import FRAME_SAMPLES, PACKET_SAMPLES
from rtc_server.media.microphone import MicrophoneTimeline
from tests.support.signals import FloatArray

FRAME_S = 0.08
PACKET_S = 0.02
LEAD_FRAMES = 3
"""How far the timeline may run ahead of real time."""
LAG_FRAMES = 2
"""How far it may be behind: the frame that is being filled, and one of patience."""
START_S = 1000.0
"""A monotonic clock does not begin at zero."""

Packets = Iterator[tuple[float, FloatArray]]


def packets(
    seconds: float, late_s: Callable[[float], float] = lambda _: 0.0, clock_ppm: float = 0.0
) -> Iterator[tuple[float, FloatArray]]:
    """20 ms packets of ones, complete when their time has passed; ``late_s`` gives each its delay on the way."""
    step_s = PACKET_S / (1 + clock_ppm * 1e-6)
    latest = 0.0
    for number in range(1, round(seconds / step_s) + 1):
        sent = number * step_s
        latest = max(latest, sent + late_s(sent))
        yield START_S + latest, np.ones(PACKET_SAMPLES, np.float32)


class Listener:
    """Runs a timeline as a session does: pushes what comes, polls at the deadline."""

    def __init__(self) -> None:
        self.timeline = MicrophoneTimeline(START_S)
        self.frames: list[FloatArray] = []
        self.times: list[float] = []

    def run(self, arriving: Packets, until_s: float) -> Listener:
        end = START_S + until_s
        for at, pcm in arriving:
            if at > end:
                break
            self._poll_until(at)
            self._take(self.timeline.push(pcm, at), at)
        self._poll_until(end)
        return self

    def _poll_until(self, end: float) -> None:
        while self.timeline.deadline < end:
            now = self.timeline.deadline
            self._take(self.timeline.poll(now), now)
            assert self.timeline.deadline > now, "a poll that leaves the deadline would never end"

    def _take(self, frames: list[FloatArray], now: float) -> None:
        assert all(frame.shape == (FRAME_SAMPLES,) for frame in frames)
        self.frames += frames
        self.times += [now] * len(frames)
        assert len(self.frames) <= (now - START_S) / FRAME_S + LEAD_FRAMES + 1e-6, "ahead of real time"

    def assert_real_time(self, seconds: float) -> None:
        """Neither ahead nor behind, at the end nor on the way."""
        assert seconds / FRAME_S - LAG_FRAMES <= len(self.frames) <= seconds / FRAME_S + LEAD_FRAMES
        due = (np.array(self.times) - START_S) / FRAME_S
        assert (due - np.arange(due.size)).max() <= LAG_FRAMES + 1e-6, "behind real time"

    @property
    def heard(self) -> float:
        """How many frames' worth of what was said reached the model."""
        return float(np.sum([frame.sum() for frame in self.frames])) / FRAME_SAMPLES


def test_a_steady_microphone_passes_untouched() -> None:
    """Every sample, in order, each frame as soon as it is complete, nothing filled or dropped."""
    timeline = MicrophoneTimeline(START_S)
    pcm = np.arange(100 * FRAME_SAMPLES, dtype=np.float32)
    out: list[FloatArray] = []
    for number in range(400):
        block = pcm[number * PACKET_SAMPLES : (number + 1) * PACKET_SAMPLES]
        out += timeline.push(block, START_S + (number + 1) * PACKET_S)
        assert not timeline.poll(START_S + (number + 1) * PACKET_S)
        assert len(out) == (number + 1) // 4
    np.testing.assert_array_equal(np.concatenate(out), pcm)
    assert (timeline.filled, timeline.dropped) == (0, 0)


def test_without_a_microphone_there_is_silence_at_the_pace_of_real_time() -> None:
    listener = Listener().run(iter(()), 60)
    listener.assert_real_time(60)
    assert listener.heard == 0
    assert listener.timeline.filled == len(listener.frames)
    assert listener.timeline.dropped == 0


def test_a_muted_microphone_is_silence_at_the_same_pace() -> None:
    listener = Listener()
    listener.timeline.muted = True
    listener.run(packets(60), 60).assert_real_time(60)
    assert listener.heard == 0
    assert (listener.timeline.filled, listener.timeline.dropped) == (0, 0)


def test_unmuting_lets_the_voice_through_again() -> None:
    timeline = MicrophoneTimeline(START_S)
    timeline.muted = True
    (frame,) = timeline.push(np.ones(FRAME_SAMPLES, np.float32), START_S + 0.08)
    assert not frame.any()
    timeline.muted = False
    (frame,) = timeline.push(np.ones(FRAME_SAMPLES, np.float32), START_S + 0.16)
    assert frame.all()


@pytest.mark.parametrize("clock_ppm", [-200.0, 200.0])
def test_a_clock_that_drifts_for_ten_minutes(clock_ppm: float) -> None:
    """200 ppm are 120 ms in ten minutes: the pace is ours, and next to nothing of what is said is lost."""
    listener = Listener().run(packets(600, clock_ppm=clock_ppm), 600)
    listener.assert_real_time(600)
    assert listener.heard >= 600 / FRAME_S - 3
    assert listener.timeline.filled + listener.timeline.dropped <= 8


@pytest.mark.parametrize("seed", range(5))
def test_jitter_within_the_patience_loses_nothing(seed: int) -> None:
    """Packets that are late by up to 70 ms at random: all of them are heard."""
    chance = random.Random(seed)
    listener = Listener().run(packets(120, lambda _: chance.uniform(0, 0.07)), 120)
    listener.assert_real_time(120)
    assert (listener.timeline.filled, listener.timeline.dropped) == (0, 0)
    assert listener.heard >= 120 / FRAME_S - LAG_FRAMES


def test_a_burst_after_an_outage_is_cut() -> None:
    """Two seconds of nothing, then all of it at once, packet by packet: the gap was filled, the burst is dropped
    but for the lead, and what is said from then on is heard at once."""
    numbered = (
        (at, np.full(PACKET_SAMPLES, number, np.float32))
        for number, (at, _) in enumerate(packets(10, lambda sent: max(0.0, 6.0 - sent) if sent >= 4.0 else 0.0))
    )
    listener = Listener().run(numbered, 10)
    listener.assert_real_time(10)
    assert 20 <= listener.timeline.filled <= 25
    assert 20 <= listener.timeline.dropped <= 25
    assert 1 <= listener.times.count(START_S + 6.0) <= LEAD_FRAMES
    late = [
        at - START_S - frame[-1] * PACKET_S
        for frame, at in zip(listener.frames, listener.times, strict=True)
        if at > START_S + 6.5
    ]
    assert max(late) <= 2 * FRAME_S, "delay that never goes away"


def test_a_burst_in_one_piece_is_cut_to_its_newest_frames() -> None:
    timeline = MicrophoneTimeline(START_S)
    burst = np.repeat(np.arange(25, dtype=np.float32), FRAME_SAMPLES)
    frames = timeline.push(burst, START_S + 2.0)
    assert [frame[0] for frame in frames] == [22, 23, 24]
    assert timeline.dropped == 22


@pytest.mark.parametrize("loss", [0.05, 0.3, 0.6])
@pytest.mark.parametrize("seed", range(3))
def test_lost_packets_do_not_slow_the_timeline(loss: float, seed: int) -> None:
    """What never comes is replaced by as much silence, and what does come is heard."""
    chance = random.Random(seed)
    arriving = [packet for packet in packets(60) if chance.random() >= loss]
    listener = Listener().run(iter(arriving), 60)
    listener.assert_real_time(60)
    assert listener.timeline.filled > 0
    assert listener.heard >= len(arriving) / 4 - 4


@pytest.mark.parametrize("seed", range(5))
def test_a_bad_network_for_ten_minutes(seed: int) -> None:
    """Jitter, loss, outages with bursts, and drift together: still 12.5 frames a second."""
    chance = random.Random(seed)
    held_until = [0.0]

    def late_s(sent: float) -> float:
        if chance.random() < 0.0005:
            held_until[0] = sent + chance.uniform(0.2, 3.0)
        return max(chance.uniform(0, 0.06), held_until[0] - sent)

    arriving = (packet for packet in packets(600, late_s, chance.uniform(-200, 200)) if chance.random() > 0.02)
    listener = Listener().run(arriving, 600)
    listener.assert_real_time(600)
    assert listener.timeline.filled > 0
    assert listener.timeline.dropped > 0


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 0.5), st.integers(0, 4 * FRAME_SAMPLES), st.booleans()),
        max_size=60,
    )
)
def test_never_ahead_of_real_time_by_more_than_the_lead(moves: list[tuple[float, int, bool]]) -> None:
    """Blocks of any size at any time, polled or not: over any stretch, at most the lead more than real time."""
    timeline = MicrophoneTimeline(START_S)
    now = START_S
    out = 0
    for wait_s, samples, polled in moves:
        now += wait_s
        frames = timeline.push(audio.silence(samples), now)
        frames += timeline.poll(now) if polled else []
        out += len(frames)
        assert out <= (now - START_S) / FRAME_S + LEAD_FRAMES + 1e-6


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 0.5), st.integers(0, 4 * FRAME_SAMPLES), st.booleans()),
        max_size=60,
    )
)
def test_every_frame_is_given_or_counted_as_dropped(moves: list[tuple[float, int, bool]]) -> None:
    """Pushed samples and filled silence make frames; none disappears without being counted."""
    timeline = MicrophoneTimeline(START_S)
    now = START_S
    out = pushed = 0
    for wait_s, samples, polled in moves:
        now += wait_s
        out += len(timeline.push(audio.silence(samples), now))
        pushed += samples
        out += len(timeline.poll(now)) if polled else 0
    made = out + timeline.dropped
    # A filled frame holds between nothing and a whole frame of what was pushed.
    assert pushed // FRAME_SAMPLES <= made <= pushed // FRAME_SAMPLES + timeline.filled


def test_an_incomplete_frame_is_completed_and_its_voice_kept() -> None:
    """The half that came is heard, the rest of the frame is silence."""
    timeline = MicrophoneTimeline(START_S)
    assert not timeline.push(np.ones(FRAME_SAMPLES // 2, np.float32), START_S + 0.04)
    assert not timeline.poll(timeline.deadline - 0.001)
    (frame,) = timeline.poll(timeline.deadline)
    assert frame[: FRAME_SAMPLES // 2].all()
    assert not frame[FRAME_SAMPLES // 2 :].any()
    assert timeline.filled == 1


def test_a_restart_forgets_the_past_and_starts_time_anew() -> None:
    """Nothing buffered before is heard after, and the time in between is owed no frames."""
    timeline = MicrophoneTimeline(START_S)
    timeline.push(np.ones(FRAME_SAMPLES - 1, np.float32), START_S)
    timeline.restart(START_S + 60)
    assert not timeline.poll(START_S + 60.1)
    (frame,) = timeline.push(audio.silence(FRAME_SAMPLES), START_S + 60.1)
    assert not frame.any()
    assert (timeline.filled, timeline.dropped) == (0, 0)


def test_a_peer_that_has_just_connected_may_take_its_time() -> None:
    """Time starts with its first samples; when none come, after the patience that was given."""
    late, mute = MicrophoneTimeline(START_S), MicrophoneTimeline(START_S)
    for timeline in (late, mute):
        timeline.restart(START_S, patience_s=2.0)
        assert not timeline.poll(START_S + 1.99)
    late.push(audio.silence(FRAME_SAMPLES // 4), START_S + 1.5)
    assert late.deadline == pytest.approx(START_S + 1.5 + 2 * FRAME_S), "a frame, and as much patience as always"
    assert len(late.push(audio.silence(FRAME_SAMPLES), START_S + 1.58)) == 1
    assert late.filled == 0
    assert len(mute.poll(START_S + 2.0)) == 1
    assert mute.deadline == pytest.approx(START_S + 2.0 + FRAME_S), "no more patience afterwards"


def test_a_held_up_event_loop_does_not_make_a_backlog() -> None:
    """A poll that comes two seconds late gives the lead at most, and time is right again afterwards."""
    timeline = MicrophoneTimeline(START_S)
    assert len(timeline.poll(START_S + 2.0)) <= LEAD_FRAMES
    assert START_S + 2.0 < timeline.deadline <= START_S + 2.0 + FRAME_S
    assert timeline.filled == timeline.dropped + LEAD_FRAMES


def test_a_push_before_a_late_poll_owes_no_silence_for_what_came() -> None:
    """The event loop was held up for two seconds and the packets lay in the socket: nothing is missing."""
    timeline = MicrophoneTimeline(START_S)
    frames = timeline.push(np.ones(25 * FRAME_SAMPLES, np.float32), START_S + 2.0)
    assert len(frames) == LEAD_FRAMES
    assert not timeline.poll(START_S + 2.0)
    assert timeline.filled == 0
