"""What a call's log says: delay over time, gaps, and how much of what was said came back in time.

Pure. The received packets are decoded onto a timeline of their own; windows of it are looked for in the tape
(by correlation), which tells of each packet when the sound in it had been sent. Delay is counted from packet
sent to packet received, for the same sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.signal import correlate

from bench.rtp_client import Arrival, CallLog
from bench.tape import ANALYSIS_HZ, OPUS_HZ, PACKET_S, Decoder, FloatArray, SoundDecoder, Tape, to_analysis_rate

_WINDOW_S: Final = 0.4
_HOP_S: Final = 0.1
LONGEST_DELAY_S: Final = 4.0
"""So far back a window is looked for, unless told otherwise; further, its sound is not recognised."""
_ALIKE: Final = 0.8
"""Correlation over which a window is taken for the place in the tape that it resembles most."""
_DAMAGED: Final = 0.5
"""Correlation that is enough where the window is expected, or where nothing else comes near: by so much."""
_DISTINCT: Final = 0.15
_NEARLY: Final = 0.15
_NEAR: Final = ANALYSIS_HZ // 100
_BLOCK_S: Final = 0.01
_TAIL_BLOCKS: Final = 50
"""At the end of a call there is no more window to tell; for so many blocks what was told last is believed."""
_SPOKEN_DBFS: Final = -40.0
_GONE_DB: Final = 25.0
"""Sound that is this much quieter than what was said is a gap."""
_ON_TIME_S: Final = 0.06
"""What a listener's buffer can hide: one packet, and 40 ms."""
_SLOT_S: Final = 0.2
_GOOD_SLOTS: Final = 5
_GOOD_SHARE: Final = 0.95
_PER_PACKET: Final = int(ANALYSIS_HZ * PACKET_S)
_PER_BLOCK: Final = int(ANALYSIS_HZ * _BLOCK_S)

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back, at :data:`ANALYSIS_HZ`, on the timeline of its RTP timestamps.

    ``starts``, ``sizes``: of each packet, in samples. ``arrived``: monotonic seconds. ``holes``: stretches, from and
    to, of packets that were sent and never came. ``missing``: how many those were. ``repeated``: packets that came
    twice.
    """

    pcm: FloatArray
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    arrived: Doubles
    holes: list[tuple[int, int]]
    missing: int
    repeated: int

    def present(self) -> npt.NDArray[np.bool_]:
        """Of each 10 ms, whether it came: what was lost on the way back is not the server's silence."""
        there = np.ones(self.pcm.size // _PER_BLOCK, dtype=bool)
        for first, last in self.holes:
            there[first // _PER_BLOCK : -(-last // _PER_BLOCK)] = False
        return there

    def time_of(self, samples: npt.ArrayLike) -> Doubles:
        """When the samples at these places arrived, counted on within their packet."""
        places = np.asarray(samples)
        packet = np.clip(np.searchsorted(self.starts, places, side="right") - 1, 0, self.starts.size - 1)
        return self.arrived[packet] + (places - self.starts[packet]) / ANALYSIS_HZ


@dataclass(frozen=True, slots=True)
class Track:
    """Where each 10 ms of what was heard stands in what was said.

    ``shift[i]``: samples by which block ``i``'s place in the said lies before its place in the heard; NaN before
    anything was recognised. ``alike[i]``: correlation of the window that told, 0 where none did. ``sure[i]``:
    whether the block was recognised, or the shift is the same on both sides of the stretch that was not.
    """

    shift: Doubles
    alike: Doubles
    sure: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Delays:
    """Per received packet that holds recognised sound: when it arrived, and how long its sound was under way."""

    at: Doubles
    seconds: Doubles


@dataclass(frozen=True, slots=True)
class Verdict:
    """``likeness``: median correlation of recognised windows. ``longest_silence_s``: where something was said.
    ``longest_wait_s``: in which no packet arrived. ``on_time``: share of the sound said that was audible within
    60 ms of the reference delay. What was lost on the way back counts for nothing in these.
    ``missing``: packets lost on the way back."""

    delays: Delays
    likeness: float
    longest_silence_s: float
    longest_wait_s: float
    on_time: float
    missing: int

    @property
    def longest_gap_s(self) -> float:
        return max(self.longest_silence_s, self.longest_wait_s)


def assemble(arrivals: Sequence[Arrival], make_decoder: Callable[[], SoundDecoder] = Decoder) -> Heard:
    """Decode in the order of sequence numbers. Timestamps place a packet, unless it would overlap the last."""
    by_sequence: dict[int, Arrival] = {}
    unwrapped = arrivals[0].sequence if arrivals else 0
    highest = unwrapped
    for arrival in arrivals:
        sequence = highest + ((arrival.sequence - highest + 0x8000) & 0xFFFF) - 0x8000
        highest = max(highest, sequence)
        by_sequence.setdefault(sequence, arrival)
    decoder = make_decoder()
    blocks: list[FloatArray] = []
    starts: list[int] = []
    sizes: list[int] = []
    end = 0
    origin: int | None = None
    step = OPUS_HZ // ANALYSIS_HZ
    holes: list[tuple[int, int]] = []
    ordered = sorted(by_sequence)
    before = ordered[0] - 1 if ordered else 0
    for sequence in ordered:
        arrival = by_sequence[sequence]
        pcm = decoder.decode(arrival.payload)
        origin = arrival.timestamp if origin is None else origin
        gap = ((arrival.timestamp - origin) & 0xFFFFFFFF) - end
        # A stream whose timestamps leap (a new source, a stack that guesses) goes on where it was.
        if 0 < gap <= OPUS_HZ * 10:
            if sequence > before + 1:
                holes.append((end // step, (end + gap) // step))
            blocks.append(np.zeros(gap, dtype=np.float32))
            end += gap
        starts.append(end)
        sizes.append(pcm.size)
        blocks.append(pcm)
        end += pcm.size
        before = sequence
    return Heard(
        pcm=to_analysis_rate(np.concatenate(blocks)) if blocks else np.zeros(0, dtype=np.float32),
        starts=np.asarray(starts, dtype=np.int64) // step,
        sizes=np.asarray(sizes, dtype=np.int64) // step,
        arrived=np.asarray([by_sequence[sequence].at for sequence in ordered]),
        holes=holes,
        missing=(ordered[-1] - ordered[0] + 1 - len(ordered)) if ordered else 0,
        repeated=len(arrivals) - len(ordered),
    )


class Said:
    """The tape as it was played: which sample was sent when."""

    def __init__(self, tape: Tape, sent: Sequence[float]) -> None:
        turns = -(-len(sent) // len(tape.packets))
        self.pcm = np.tile(tape.twin, turns)[: len(sent) * _PER_PACKET]
        self.sent = np.asarray(sent)

    def time_of(self, samples: npt.ArrayLike) -> Doubles:
        places = np.asarray(samples, dtype=np.float64)
        packet = np.clip((places // _PER_PACKET).astype(np.int64), 0, self.sent.size - 1)
        return self.sent[packet] + (places - packet * _PER_PACKET) / ANALYSIS_HZ

    def place_at(self, when: float) -> int:
        """The sample that was being sent at a time."""
        return int(np.searchsorted(self.sent, when)) * _PER_PACKET


def follow(said: Said, heard: Heard, longest_delay_s: float = LONGEST_DELAY_S) -> Track:
    """Look for each window of the heard in what had been said by then. The tape's loop must be longer than the
    longest delay that is looked for, or two turns of it could not be told apart."""
    count = heard.pcm.size // _PER_BLOCK
    shift = np.full(count, np.nan)
    alike = np.zeros(count)
    window, hop = int(_WINDOW_S * ANALYSIS_HZ), int(_HOP_S * ANALYSIS_HZ)
    expected: int | None = None
    for start in range(0, heard.pcm.size - window + 1, hop):
        likely = None if expected is None else start - expected
        found = _find(said, heard, start, window, likely, longest_delay_s)
        if found is None:
            continue
        place, correlation = found
        expected = start - place
        # The middle of the window speaks for its hop; a better match over the same blocks wins.
        first = (start + (window - hop) // 2) // _PER_BLOCK
        blocks = slice(first, first + hop // _PER_BLOCK)
        shift[blocks] = start - place
        alike[blocks] = correlation
    before, after = _hold(shift), _hold(shift[::-1])[::-1]
    after[-_TAIL_BLOCKS:] = np.where(np.isnan(after), before, after)[-_TAIL_BLOCKS:]
    return Track(before, alike, np.abs(before - after) <= _NEAR)


def _find(
    said: Said, heard: Heard, start: int, window: int, expected: int | None, longest_delay_s: float
) -> tuple[int, float] | None:
    """The place in the said and the correlation there. Where a window is damaged, a vowel elsewhere may resemble it
    more than its own original: ``expected``, where the one before was found, needs to be nearly as good only."""
    piece = heard.pcm[start : start + window].astype(np.float64)
    energy = float(np.dot(piece, piece))
    if energy < window * 10 ** (_SPOKEN_DBFS / 10):
        return None
    arrived = float(heard.time_of(start + window // 2))
    last = min(said.place_at(arrived) + window, said.pcm.size)
    first = max(0, said.place_at(arrived - longest_delay_s) - window)
    if last - first <= window:
        return None
    where = said.pcm[first:last].astype(np.float64)
    products = correlate(where, piece, mode="valid", method="fft")
    sums = np.concatenate(([0.0], np.cumsum(where**2)))
    norms = np.sqrt(np.maximum(sums[window:] - sums[:-window], 1e-9) * energy)
    correlations = products / norms
    best = int(correlations.argmax())
    if expected is not None and first <= expected < first + correlations.size:
        low = max(0, expected - first - _NEAR)
        near = low + int(correlations[low : expected - first + _NEAR + 1].argmax())
        if correlations[near] >= max(_DAMAGED, correlations[best] - _NEARLY):
            return first + near, float(correlations[near])
    elsewhere = np.concatenate((correlations[: max(0, best - _NEAR)], correlations[best + _NEAR + 1 :]))
    unmistakable = not elsewhere.size or correlations[best] >= elsewhere.max() + _DISTINCT
    if correlations[best] >= _ALIKE or (correlations[best] >= _DAMAGED and unmistakable):
        return first + best, float(correlations[best])
    return None


def _hold(values: Doubles) -> Doubles:
    """Each NaN takes the last number before it; those at the start stay."""
    known = np.where(np.isnan(values), -1, np.arange(values.size))
    last = np.maximum.accumulate(known) if values.size else known
    return np.where(last >= 0, values[np.maximum(last, 0)], np.nan)


def delays(said: Said, heard: Heard, track: Track) -> Delays:
    """Of each packet, by its first sample."""
    if not track.shift.size:
        return Delays(np.zeros(0), np.zeros(0))
    block = np.minimum(heard.starts // _PER_BLOCK, track.shift.size - 1)
    known = track.sure[block] & (heard.sizes > 0)
    starts = heard.starts[known]
    return Delays(heard.arrived[known], heard.arrived[known] - said.time_of(starts - track.shift[block][known]))


def judge(
    log: CallLog,
    tape: Tape,
    since: float = 0.0,
    until: float = float("inf"),
    reference_s: float | None = None,
    longest_delay_s: float = LONGEST_DELAY_S,
) -> Verdict:
    """A call, from ``since`` to ``until`` (monotonic seconds, of what was said).

    ``reference_s``: the delay that the listener is used to; the median delay of this stretch if not given.
    ``longest_delay_s``: see :data:`LONGEST_DELAY_S`.
    """
    until = min(until, log.arrivals[-1].at) if log.arrivals else until
    said, heard = Said(tape, log.sent), assemble(log.arrivals, log.decoder)
    track = follow(said, heard, longest_delay_s)
    measured = delays(said, heard, track)
    within = (measured.at >= since) & (measured.at <= until)
    chosen = Delays(measured.at[within], measured.seconds[within])
    if reference_s is None:
        reference_s = float(np.median(chosen.seconds)) if chosen.seconds.size else 0.0
    recognised = track.alike[track.alike > 0]
    return Verdict(
        delays=chosen,
        likeness=float(np.median(recognised)) if recognised.size else 0.0,
        longest_silence_s=_longest_silence_s(said, heard, track, since, until),
        longest_wait_s=_longest_wait_s(log, since, until),
        on_time=_on_time(said, heard, track, since, until, reference_s),
        missing=heard.missing,
    )


def _longest_wait_s(log: CallLog, since: float, until: float) -> float:
    """The longest time in which something was due and nothing arrived. A pause that the sender made (DTX: timestamps
    move on, sequence numbers have no hole) is none."""
    pairs = pairwise(arrival for arrival in log.arrivals if arrival.at <= until)
    return max(
        (after.at - before.at - _due_s(before, after) for before, after in pairs if after.at >= since), default=0.0
    )


def _due_s(before: Arrival, after: Arrival) -> float:
    """How long after ``before`` the packet behind it was due."""
    if after.sequence != (before.sequence + 1) & 0xFFFF:
        return PACKET_S
    return max(PACKET_S, ((after.timestamp - before.timestamp) & 0xFFFFFFFF) / OPUS_HZ)


def first_sound_at(log: CallLog) -> float | None:
    """When the first packet with audible sound in it arrived."""
    decoder = log.decoder()
    for arrival in log.arrivals:
        pcm = decoder.decode(arrival.payload)
        if pcm.size and 10 * np.log10(max(float(np.mean(pcm.astype(np.float64) ** 2)), 1e-10)) > _SPOKEN_DBFS:
            return arrival.at
    return None


def settled_at(found: Delays, since: float, level_s: float, tolerance_s: float = 0.02) -> float | None:
    """Seconds after ``since`` from which on the delay is within ``tolerance_s`` of ``level_s``; None if never.

    Judged by the medians of slots of 200 ms: the next five have to be good, and 95 % of all that follow, so that
    a hiccup of the machine, long after, is not taken for a delay that stayed.
    """
    after = found.at >= since
    slots = ((found.at[after] - since) / _SLOT_S).astype(int)
    values = found.seconds[after]
    numbers = np.unique(slots)
    good = np.array([np.median(values[slots == number]) <= level_s + tolerance_s for number in numbers], dtype=bool)
    for index, number in enumerate(numbers):
        rest = good[index:]
        if rest[:_GOOD_SLOTS].all() and rest.size >= _GOOD_SLOTS and rest.mean() >= _GOOD_SHARE:
            return float(number * _SLOT_S)
    return None


def block_levels(pcm: FloatArray) -> Doubles:
    """Of each 10 ms, in dB relative to full scale."""
    blocks = pcm[: pcm.size // _PER_BLOCK * _PER_BLOCK].reshape(-1, _PER_BLOCK).astype(np.float64)
    return np.asarray(10 * np.log10(np.maximum((blocks**2).mean(axis=1), 1e-10)), dtype=np.float64)


def _counterparts(said: Said, heard: Heard, track: Track) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """For each block heard: the block said that belongs to it, and whether there is one."""
    starts = np.arange(track.shift.size) * _PER_BLOCK
    places = np.round((starts - np.nan_to_num(track.shift)) / _PER_BLOCK).astype(np.int64)
    known = ~np.isnan(track.shift) & (places >= 0) & (places < said.pcm.size // _PER_BLOCK)
    return np.clip(places, 0, None), known


def _longest_silence_s(said: Said, heard: Heard, track: Track, since: float, until: float) -> float:
    meant, found = block_levels(said.pcm), block_levels(heard.pcm)
    places, known = _counterparts(said, heard, track)
    times = heard.time_of(np.arange(track.shift.size) * _PER_BLOCK)
    longest = run = 0
    for index in np.flatnonzero(known & heard.present() & (times >= since) & (times <= until)):
        loud = meant[places[index]]
        run = run + 1 if loud > _SPOKEN_DBFS and found[index] < loud - _GONE_DB else 0
        longest = max(longest, run)
    return longest * _BLOCK_S


def _on_time(said: Said, heard: Heard, track: Track, since: float, until: float, reference_s: float) -> float:
    """Share of the 10 ms blocks spoken between the two times that were heard soon enough."""
    meant, found = block_levels(said.pcm), block_levels(heard.pcm)
    places, known = _counterparts(said, heard, track)
    arrived = heard.time_of(np.arange(track.shift.size) * _PER_BLOCK)
    sent = said.time_of(np.arange(meant.size) * _PER_BLOCK)
    audible, excused = np.zeros(meant.size, dtype=bool), np.zeros(meant.size, dtype=bool)
    present = heard.present()
    for index in np.flatnonzero(known & track.sure):
        place = places[index]
        if not present[index]:
            excused[place] = True
            continue
        near = slice(max(0, place - 1), place + 2)  # a codec smears an edge by some milliseconds
        in_time = arrived[index] - sent[place] <= reference_s + _ON_TIME_S
        if in_time and found[index] >= meant[near].min() - _GONE_DB:
            audible[place] = True
    spoken = ~excused & (meant > _SPOKEN_DBFS) & (sent >= since) & (sent <= until - reference_s - _ON_TIME_S)
    return float(audible[spoken].mean()) if spoken.any() else 0.0
