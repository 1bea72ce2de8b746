"""The audio jitter buffer: reorders packets and reports gaps, within a bounded delay.

Pure; time is an argument, in monotonic seconds. It works on RTP timestamps, in ticks of the codec's clock.

Its reader is a model, not a loudspeaker, so nothing is gained by holding back what is in order: a packet whose
turn it is goes through at once, and costs no delay. Only a packet that is missing is waited for, until it is
later than nearly all others have been; then a gap goes out in its place, with the packet behind it when that is
there, for its forward error correction. What comes for a gap that has gone out is late, and dropped: the delay
never grows. How long to wait follows the lateness measured over the last seconds, up and down.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

MIN_WAIT_S: Final = 0.025
"""One packet and a little more, on a network with no jitter at all: so that when a packet is lost, the one behind it
is there with its forward error correction."""
MAX_WAIT_S: Final = 0.240
"""Three frames. A call that waits longer for its packets is no conversation."""
MAX_HELD: Final = 128
"""Packets ahead of a gap. More than two seconds of them is an attack or a fault."""
MAX_GAP_S: Final = 0.240
"""After this long with nothing the stream is taken to have stopped: it starts afresh with its next packet."""

_WINDOW: Final = 200
"""Packets over which lateness is measured: 4 s of 20 ms packets."""
_QUANTILE: Final = 0.98
_SPARE_S: Final = 0.005
_REFRESH: Final = 10
"""Packets after which the wait is computed again."""
JUMP_S: Final = 5.0
"""A timestamp that far from the last is a new stream, not a late packet."""
_LATE_RUN: Final = 25
"""So many late packets in a row are no accident: the path has become longer."""


@dataclass(frozen=True, slots=True)
class Audio:
    """A packet, in its turn."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """``ticks`` of audio that did not come. ``after``: the packet behind the gap, if it is there.

    ``quiet``: nothing was lost, the sender had nothing to send (RFC 3551, section 4.1: a marker, or sequence
    numbers without a hole, across a hole in time).
    """

    ticks: int
    after: bytes | None = None
    quiet: bool = False


Item = Audio | Gap


@dataclass(slots=True)
class JitterCounts:
    """Totals of one buffer. ``concealed_ticks``: of audio that gaps stood in for because it was lost or late."""

    received: int = 0
    late: int = 0
    duplicate: int = 0
    lost: int = 0
    restarts: int = 0
    concealed_ticks: int = 0
    played_ticks: int = 0


@dataclass(frozen=True, slots=True)
class _Held:
    sequence: int
    ticks: int
    payload: bytes


class Lateness:
    """How late packets come, against the quickest of the last seconds. Follows a sender whose clock drifts."""

    def __init__(self) -> None:
        self._transits: deque[float] = deque(maxlen=_WINDOW)
        self._since_refresh = 0
        self.base_s = 0.0
        self.wait_s = MIN_WAIT_S

    def add(self, transit_s: float) -> None:
        """``transit_s``: arrival time less media time; only differences count."""
        self._transits.append(transit_s)
        self._since_refresh += 1
        if len(self._transits) == 1 or transit_s < self.base_s:
            self.base_s = transit_s
        if self._since_refresh >= _REFRESH or transit_s - self.base_s > self.wait_s:
            self._refresh()

    def _refresh(self) -> None:
        self._since_refresh = 0
        ordered = sorted(self._transits)
        self.base_s = ordered[0]
        spread = ordered[min(len(ordered) - 1, int(len(ordered) * _QUANTILE))] - ordered[0]
        self.wait_s = min(MAX_WAIT_S, max(MIN_WAIT_S, spread + _SPARE_S))


class JitterBuffer:
    """One RTP stream. ``clock_hz``: of its timestamps."""

    def __init__(self, clock_hz: int) -> None:
        self._clock_hz = clock_hz
        self._held: dict[int, _Held] = {}
        self._played: deque[int] = deque()
        self._played_set: set[int] = set()
        self._lateness = Lateness()
        self._next: int | None = None
        self._next_sequence = 0
        self._last_ticks = clock_hz // 50
        self._gap_ticks = 0
        self._late_run = 0
        self._ssrc: int | None = None
        self.counts = JitterCounts()

    @property
    def wait_ms(self) -> float:
        """How long a missing packet is waited for, now: the buffer's depth."""
        return self._lateness.wait_s * 1000

    @property
    def running(self) -> bool:
        """Whether a stream is being followed: not before its first packet, nor when it has stopped."""
        return self._next is not None

    @property
    def deadline(self) -> float | None:
        """When to call :meth:`poll` next, in monotonic seconds; None while there is nothing to wait for."""
        if self._next is None:
            return None
        return self._lateness.base_s + self._next / self._clock_hz + self._lateness.wait_s

    def push(self, ssrc: int, sequence: int, timestamp: int, ticks: int, payload: bytes, now: float) -> list[Item]:
        """Take a packet of ``ticks`` ticks; returns what goes out now."""
        self.counts.received += 1
        position = self._unwrap(ssrc, timestamp)
        if position in self._held or position in self._played_set:
            # Not measured: a flood of copies would move the time by which everything else is due.
            self.counts.duplicate += 1
            return []
        self._lateness.add(now - position / self._clock_hz)
        if self._next is None:
            self._next = position
            self._next_sequence = sequence
        if position < self._next:
            self._on_late()
            return []
        self._late_run = 0
        self._last_ticks = ticks
        self._held[position] = _Held(sequence, ticks, payload)
        if len(self._held) > MAX_HELD:
            self._skip_to(min(self._held))
        return self._release()

    def poll(self, now: float) -> list[Item]:
        """Release what has been waited for long enough."""
        items: list[Item] = []
        while self._next is not None and (deadline := self.deadline) is not None and now >= deadline:
            items.append(self._gap())
            if self._gap_ticks >= MAX_GAP_S * self._clock_hz:
                self.stop()
            else:
                items += self._release()
        return items

    def stop(self) -> None:
        """Take the stream to have ended; the next packet starts it afresh."""
        self._next = None
        self._held.clear()
        self._played.clear()
        self._played_set.clear()
        self._gap_ticks = 0
        self._lateness = Lateness()
        self.counts.restarts += 1

    def _unwrap(self, ssrc: int, timestamp: int) -> int:
        """``timestamp`` (32 bits, wrapping) on an axis without end, nearest to what is next."""
        if self._next is None or ssrc != self._ssrc:
            if self._next is not None:
                self.stop()
            self._ssrc = ssrc
            return timestamp
        delta = (timestamp - self._next + 2**31) % 2**32 - 2**31
        if abs(delta) > JUMP_S * self._clock_hz:
            self.stop()
            return timestamp
        return self._next + delta

    def _on_late(self) -> None:
        self.counts.late += 1
        self._late_run += 1
        if self._late_run >= _LATE_RUN:
            self.stop()

    def _release(self) -> list[Item]:
        """All that is in order now."""
        items: list[Item] = []
        while self._next is not None and self._held:
            held = self._held.pop(self._next, None)
            if held is None:
                first = min(self._held)
                if self._held[first].sequence != self._next_sequence:
                    break
                # Nothing is missing before it: the sender was silent for a while. A long silence has been
                # filled by the reader, for the stream had stopped.
                if first - self._next < MAX_GAP_S * self._clock_hz:
                    items.append(Gap(first - self._next, self._held[first].payload, quiet=True))
                self._next = first
                continue
            items.append(Audio(held.payload))
            self.counts.lost += (held.sequence - self._next_sequence) % 2**16 if self._played else 0
            self._remember(self._next)
            self._next_sequence = (held.sequence + 1) % 2**16
            self._gap_ticks = 0
            self.counts.played_ticks += held.ticks
            self._advance(held.ticks)
        return items

    def _remember(self, position: int) -> None:
        """It has been played; a copy of it is one, not late."""
        if len(self._played) >= MAX_HELD:
            self._played_set.discard(self._played.popleft())
        self._played.append(position)
        self._played_set.add(position)

    def _gap(self) -> Gap:
        """One packet's worth of nothing."""
        assert self._next is not None
        ahead = min(self._held, default=None)
        ticks = self._last_ticks if ahead is None else min(self._last_ticks, ahead - self._next)
        after = self._held[ahead].payload if ahead == self._next + ticks else None
        self.counts.concealed_ticks += ticks
        self._gap_ticks += ticks
        self._advance(ticks)
        return Gap(ticks, after)

    def _advance(self, ticks: int) -> None:
        assert self._next is not None
        self._next += ticks
        # A packet that overlaps what has gone out (odd timestamps) can never have its turn.
        for position in [position for position in self._held if position < self._next]:
            del self._held[position]
            self.counts.late += 1

    def _skip_to(self, position: int) -> None:
        assert self._next is not None
        self._advance(position - self._next)
