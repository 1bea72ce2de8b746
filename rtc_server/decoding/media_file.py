"""Decodes all audio of a file, block by block, and collects what could not be decoded. Blocks, and trusts FFmpeg:
``nursery`` says where it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.decoding.container import Recording
from rtc_server.decoding.findings import Notice, Refusal, Refused
from rtc_server.decoding.source import Source, Window
from rtc_server.decoding.structure import Part, parts_of, why_unreadable
from rtc_server.decoding.timeline import Timeline
from rtc_server.decoding.tracks import TrackMix

MAX_DURATION_S: Final = 12 * 3600
"""A few kilobytes can hold days of silence."""
BLOCK_S: Final = 1.0
"""Least length of a block but the last: enough that the way between processes costs nothing."""
_TRIFLE_BYTES: Final = 4096
"""What is left over behind a recording and is no more than this is padding, or a tag."""
_TRIFLE_S: Final = 0.5
_TRIFLE_SHARE: Final = 0.01
_TRIFLE_PACKETS: Final = 2


class MediaFile:
    """The recordings in ``source``, one after the other. Raises Refused if there are none.

    ``duration_s``: of the whole, by what the first one says of itself: for progress bars, and not to be relied on.
    ``notices``: what was not heard, when all is read.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._parts = parts_of(source)
        self.notices: set[Notice] = set()
        refusal = Refusal.EMPTY
        while self._parts:
            part = self._parts.pop(0)
            try:
                self._recording, self._part = self._open(part), part
                self.duration_s = self._whole_s()
                return
            except Refused as refused:
                refusal = refused.refusal
                if self._parts:
                    self.notices.add(Notice.LEFT_OVER)
        raise Refused(refusal)

    def close(self) -> None:
        self._recording.close()

    def blocks(self) -> Iterator[FloatArray]:
        """Mono float32 at 24 kHz, within ±1, each of :data:`BLOCK_S` or more but the last, never empty. Raises Refused
        if nothing can be decoded, or after :data:`MAX_DURATION_S`."""
        kept: list[FloatArray] = []
        samples = total = 0
        for pcm in self._sound():
            kept.append(pcm)
            samples += pcm.size
            total += pcm.size
            if total > MAX_DURATION_S * MODEL_RATE_HZ:
                raise Refused(Refusal.TOO_LONG)
            if samples >= BLOCK_S * MODEL_RATE_HZ:
                yield np.concatenate(kept)
                kept, samples = [], 0
        if samples:
            yield np.concatenate(kept)
        elif not total:
            raise Refused(why_unreadable(self._source, self._part) or Refusal.NO_SOUND)

    def _whole_s(self) -> float | None:
        duration_s, part = self._recording.duration_s, self._part
        if duration_s is None or not self._parts:
            return duration_s
        return duration_s * (self._parts[-1].end - part.start) / (part.end - part.start)

    def _sound(self) -> Iterator[FloatArray]:
        yield from self._of_one()
        for part in self._parts:
            self.close()
            try:
                self._recording, self._part = self._open(part), part
            except Refused as refused:
                if refused.refusal is Refusal.MEMORY:
                    raise
                if not self._is_trifle(part):
                    self.notices.add(Notice.LEFT_OVER)
                continue
            yield from self._of_one()

    def _open(self, part: Part) -> Recording:
        try:
            return Recording(Window(self._source, part.start, part.end, part.patches))
        except Refused as refused:
            if refused.refusal in (Refusal.NOT_MEDIA, Refusal.NO_TRACK) and (why := why_unreadable(self._source, part)):
                raise Refused(why) from None
            raise

    def _is_trifle(self, part: Part) -> bool:
        if part.end - part.start <= _TRIFLE_BYTES:
            return True
        window = Window(self._source, part.start, part.end)
        while data := window.read(64 * 1024):
            if data.count(data[0]) != len(data):
                return False
        return True

    def _of_one(self) -> Iterator[FloatArray]:
        recording = self._recording
        timelines = [Timeline(recording.start_s) for _ in recording.tracks]
        samples = [0 for _ in recording.tracks]
        mix = TrackMix(_versions(recording))
        for number, frame in recording.frames():
            for pcm in timelines[number].push(frame):
                samples[number] += pcm.size
                yield from mix.push(number, pcm)
        for number, timeline in enumerate(timelines):
            pcm = timeline.flush()
            samples[number] += pcm.size
            yield from mix.push(number, pcm)
        yield from mix.flush()
        if recording.left_out or mix.left_out:
            self.notices.add(Notice.TRACKS_LEFT_OUT)
        self._note(recording, [count / MODEL_RATE_HZ for count in samples])

    def _note(self, recording: Recording, heard_s: list[float]) -> None:
        """Note what was missing in a recording that has been read."""
        pairs = list(zip(recording.tracks, heard_s, strict=True))
        if (
            self._part.cut_off
            or recording.broke_off
            or (
                recording.tells_length
                and any(
                    track.length_s is not None and 0 < seconds < track.length_s * (1 - _TRIFLE_SHARE) - _TRIFLE_S
                    for track, seconds in pairs
                )
            )
        ):
            self.notices.add(Notice.CUT_OFF)
        if any(track.swollen for track in recording.tracks):
            self.notices.add(Notice.LEFT_OVER)
        if any(track.failed_packets > _TRIFLE_PACKETS and seconds for track, seconds in pairs):
            self.notices.add(Notice.DAMAGED)
        if any(heard_s) and (recording.undecodable or any(track.packets and not seconds for track, seconds in pairs)):
            self.notices.add(Notice.TRACK_UNREADABLE)


def _versions(recording: Recording) -> list[str]:
    """A track that does not say its language is of the first one's."""
    versions = [track.version for track in recording.tracks]
    first = next(filter(None, versions), "")
    return [version or first for version in versions]
