"""Mixes the tracks of one recording into the audio that is transcribed. Pure; time is counted in samples.

Tracks of one language are parts of one conversation (each caller on one, the microphone beside the computer's sound):
they are mixed. Tracks in other languages, or marked as dubs or comments, say the same in other words: one of them is
heard, the first that has any sound in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from rtc_server import audio
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.media.downmix import Downmix

_BLOCK_SAMPLES: Final = MODEL_RATE_HZ
_LAG_SAMPLES: Final = 10 * MODEL_RATE_HZ
"""How far tracks may be apart in the file before the one behind counts as silent."""
_CHOICE_BLOCKS: Final = 10
"""Seconds in which the first sound of one version may come after that of another, and is preferred all the same."""
_SOUND_DBFS: Final = -60.0


class TrackMix:
    """``versions``: of each track; those of the same are mixed, of different ones one is chosen. ``left_out``: whether
    there was sound in one that was not."""

    def __init__(self, versions: Sequence[str]) -> None:
        self._queues = [_Queue() for _ in versions]
        names = list(dict.fromkeys(versions))
        self._members = [[n for n, version in enumerate(versions) if version == name] for name in names]
        self._heard = np.zeros(len(versions), dtype=bool)
        self.left_out = False
        self._undecided: list[FloatArray] = []
        self._chosen = 0 if len(names) == 1 else -1
        self._mixes = [Downmix(_shares(len(members)), MODEL_RATE_HZ) for members in self._members]

    def push(self, track: int, pcm: FloatArray) -> Iterator[FloatArray]:
        """Blocks of what is heard, as far as all tracks are there."""
        self._queues[track].push(pcm)
        if len(self._queues) == 1:
            yield self._queues[0].take(self._queues[0].samples)
            return
        longest = max(queue.samples for queue in self._queues)
        for queue in self._queues:
            queue.pad(longest - _LAG_SAMPLES)
        while min(queue.samples for queue in self._queues) >= _BLOCK_SAMPLES:
            yield from self._take(_BLOCK_SAMPLES)

    def flush(self) -> Iterator[FloatArray]:
        """The rest: tracks that end early are silent then."""
        longest = max(queue.samples for queue in self._queues)
        for queue in self._queues:
            queue.pad(longest)
        while longest > 0:
            yield from self._take(min(longest, _BLOCK_SAMPLES))
            longest -= _BLOCK_SAMPLES
        if self._undecided:
            yield from self._decide()

    def _take(self, samples: int) -> Iterator[FloatArray]:
        block = np.stack([queue.take(samples) for queue in self._queues], axis=1)
        if self._chosen >= 0:
            yield self._mixed(block)
            return
        self._undecided.append(block)
        if len(self._undecided) >= _CHOICE_BLOCKS:
            yield from self._decide()

    def _decide(self) -> Iterator[FloatArray]:
        """The first version that has sound; silence where none has, and the question stays open."""
        blocks, self._undecided = self._undecided, []
        loud = np.logical_or.reduce([_has_sound(block) for block in blocks])
        self._chosen = next((n for n, members in enumerate(self._members) if loud[members].any()), -1)
        for block in blocks:
            yield audio.silence(block.shape[0]) if self._chosen < 0 else self._mixed(block)

    def _mixed(self, block: FloatArray) -> FloatArray:
        """By the mean of the tracks that have had any sound so far: one that never has costs the others nothing."""
        members, mix = self._members[self._chosen], self._mixes[self._chosen]
        chosen = block[:, members]
        if not self.left_out and len(self._members) > 1:
            self.left_out = bool(_has_sound(np.delete(block, members, axis=1)).any())
        heard = self._heard[members] | _has_sound(chosen)
        if not np.array_equal(heard, self._heard[members]):
            self._heard[members] = heard
            mix.set_weights((heard / heard.sum()).astype(np.float32))
        return mix.push(chosen)


def _shares(tracks: int) -> FloatArray:
    return np.full(tracks, 1 / tracks, dtype=np.float32)


def _has_sound(block: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.array([audio.level_dbfs(np.ascontiguousarray(row)) > _SOUND_DBFS for row in block.T])


class _Queue:
    """Samples of one track that wait for those of the others."""

    def __init__(self) -> None:
        self._blocks: deque[FloatArray] = deque()
        self._borrowed = 0
        self.samples = 0

    def push(self, pcm: FloatArray) -> None:
        if self._borrowed and audio.level_dbfs(pcm) <= _SOUND_DBFS:
            # The silence that this track owes: it was given in its place.
            paid = min(self._borrowed, pcm.size)
            self._borrowed -= paid
            pcm = pcm[paid:]
        self._append(pcm)

    def pad(self, samples: int) -> None:
        """With silence, up to this length."""
        while self.samples < samples:
            missing = min(samples - self.samples, _BLOCK_SAMPLES)
            self._borrowed += missing
            self._append(audio.silence(missing))

    def _append(self, pcm: FloatArray) -> None:
        if pcm.size:
            self._blocks.append(pcm)
            self.samples += pcm.size

    def take(self, samples: int) -> FloatArray:
        taken: list[FloatArray] = []
        missing = samples
        while missing > 0:
            block = self._blocks.popleft()
            if block.size > missing:
                self._blocks.appendleft(block[missing:])
                block = block[:missing]
            taken.append(block)
            missing -= block.size
        self.samples -= samples
        return np.concatenate(taken) if taken else audio.silence(0)
