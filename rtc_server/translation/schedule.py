"""Which utterances are translated next. Pure: times are arguments, in seconds.

Utterances of one pair of languages share a batch. Pairs take turns, and none has more than half of the threads where
there are several, so that one which is slow stops no other.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from rtc_server.translation.model import Utterance

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Waiting:
    """``until_s``: when it is too late."""

    number: int
    until_s: float
    utterance: Utterance

    @property
    def pair(self) -> Pair:
        return self.utterance.source, self.utterance.target


class Schedule:
    """Of what waits for a model that takes ``batch`` utterances at a time, in ``at_once`` threads."""

    def __init__(self, batch: int, at_once: int) -> None:
        self._batch = batch
        self._free = at_once
        self._for_one_pair = max(1, at_once // 2)
        self._queues: OrderedDict[Pair, list[Waiting]] = OrderedDict()
        self._running: Counter[Pair] = Counter()

    def add(self, job: Waiting) -> None:
        self._queues.setdefault(job.pair, []).append(job)

    def forget(self, number: int) -> bool:
        """Whether it was still waiting."""
        for pair, queue in self._queues.items():
            kept = [job for job in queue if job.number != number]
            if len(kept) < len(queue):
                self._keep(pair, kept)
                return True
        return False

    def overdue(self, now_s: float) -> list[Waiting]:
        """Take those for which it is too late."""
        late = [job for queue in self._queues.values() for job in queue if job.until_s <= now_s]
        for pair in {job.pair for job in late}:
            self._keep(pair, [job for job in self._queues[pair] if job.until_s > now_s])
        return late

    def begin(self) -> list[Waiting]:
        """Take the next batch, which then runs until :meth:`end`; empty if nothing waits that may run now."""
        pair = next((pair for pair in self._queues if self._running[pair] < self._for_one_pair), None)
        if not self._free or pair is None:
            return []
        queue = self._queues[pair]
        self._keep(pair, queue[self._batch :])
        if pair in self._queues:
            self._queues.move_to_end(pair)
        self._free -= 1
        self._running[pair] += 1
        return queue[: self._batch]

    def end(self, pair: Pair) -> None:
        """A batch of this pair is done."""
        self._free += 1
        self._running[pair] -= 1
        self._running += Counter()  # which leaves out what is 0

    def _keep(self, pair: Pair, jobs: list[Waiting]) -> None:
        if jobs:
            self._queues[pair] = jobs
        else:
            del self._queues[pair]
