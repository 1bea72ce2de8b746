"""A model of one direction of a network path: when does a packet that is sent now arrive, if at all?

Pure: time and packet sizes go in, delivery times come out; chance comes from a seed. Each kind of chance has a
generator of its own that is asked once for every packet, so that the pattern of losses, say, stays the same when
the jitter is changed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

_HEADERS_BYTES: Final = 28
"""IPv4 and UDP: they take their share of a rate limit."""


@dataclass(frozen=True, slots=True)
class Outage:
    """Nothing gets through from ``start_s`` on, for ``length_s``; again every ``every_s``, if that is not 0."""

    start_s: float
    length_s: float
    every_s: float = 0.0

    def covers(self, since_s: float) -> bool:
        """Whether it is on, so many seconds after the settings were applied."""
        into = since_s - self.start_s
        if into < 0:
            return False
        return (into % self.every_s if self.every_s else into) < self.length_s


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """One direction of a path.

    ``loss``: share of packets lost. ``loss_run``: mean number of packets in a row that are lost (a two-state
    Gilbert model); 0: each packet by itself. ``delay_ms`` ± ``jitter_ms``: each packet's own delay, drawn evenly
    from that interval and never negative, as netem's ``delay D J`` does. ``in_order``: a packet waits for those
    sent before it, as on a radio link that repeats and re-sorts; without, jitter reorders. ``reorder``: share of
    packets held back by ``reorder_ms`` more, whatever ``in_order`` says. ``duplicate``: share that arrives twice,
    the second with a delay of its own. ``rate_kbps``: 0 is no limit; behind it a queue of ``queue_ms``, which
    drops what does not fit.
    """

    loss: float = 0.0
    loss_run: float = 0.0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    in_order: bool = False
    reorder: float = 0.0
    reorder_ms: float = 60.0
    duplicate: float = 0.0
    rate_kbps: float = 0.0
    queue_ms: float = 200.0
    outages: tuple[Outage, ...] = ()

    def __post_init__(self) -> None:
        shares = (self.loss, self.reorder, self.duplicate)
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError("loss, reorder and duplicate are shares between 0 and 1")
        if 0 < self.loss < 1 and 0 < self.loss_run < 1:
            raise ValueError("a run of losses is at least one packet long")
        if min(self.delay_ms, self.jitter_ms, self.rate_kbps, self.queue_ms, self.reorder_ms) < 0:
            raise ValueError("times and rates are not negative")


@dataclass(slots=True)
class LinkCounts:
    """Packets so far."""

    offered: int = 0
    lost: int = 0
    queue_full: int = 0
    duplicated: int = 0
    held_back: int = 0


class Link:
    """One direction. ``now`` is in seconds and must not go backwards."""

    def __init__(self, settings: LinkSettings, seed: int | str, now: float = 0.0) -> None:
        self.counts = LinkCounts()
        chances = (random.Random(f"{seed}/{name}") for name in ("loss", "jitter", "reorder", "duplicate"))
        self._loss, self._jitter, self._reorder, self._duplicate = chances
        self._bad = False
        self._to_drop = 0
        self._free_at = now
        self._last_at = now
        self.apply(settings, now)

    def apply(self, settings: LinkSettings, now: float) -> None:
        """Other settings from now on; what is under way stays so. Outages count from ``now``."""
        self.settings = settings
        self._since = now

    def drop_next(self, packets: int) -> None:
        """Lose so many of the next packets that may be dropped, besides what chance takes."""
        self._to_drop += packets

    def send(self, now: float, size_bytes: int, *, droppable: bool = True) -> list[float]:
        """When the packet arrives: one time, none if it is lost, two if it is duplicated.

        ``droppable``: whether :meth:`drop_next` means this packet.
        """
        self.counts.offered += 1
        lost = self._is_lost()
        delay_s, twin_delay_s = self._delay_s(), self._delay_s()
        held_back = self._reorder.random() < self.settings.reorder
        twice = self._duplicate.random() < self.settings.duplicate
        if droppable and self._to_drop:
            self._to_drop -= 1
            lost = True
        if lost or any(outage.covers(now - self._since) for outage in self.settings.outages):
            self.counts.lost += 1
            return []
        left_at = self._through_queue(now, size_bytes)
        if left_at is None:
            self.counts.queue_full += 1
            return []
        at = left_at + delay_s
        if self.settings.in_order:
            at = self._last_at = max(at, self._last_at)
        if held_back:
            self.counts.held_back += 1
            at += self.settings.reorder_ms / 1000
        if not twice:
            return [at]
        self.counts.duplicated += 1
        return [at, max(at, left_at + twin_delay_s)]

    def _is_lost(self) -> bool:
        loss, run = self.settings.loss, self.settings.loss_run
        chance = self._loss.random()
        if not run or loss in (0.0, 1.0):
            self._bad = False
            return chance < loss
        if self._bad:
            self._bad = chance >= 1 / run
        else:
            self._bad = chance < loss / (run * (1 - loss))
        return self._bad

    def _delay_s(self) -> float:
        spread = self._jitter.uniform(-1.0, 1.0) * self.settings.jitter_ms
        return max(0.0, self.settings.delay_ms + spread) / 1000

    def _through_queue(self, now: float, size_bytes: int) -> float | None:
        if not self.settings.rate_kbps:
            return now
        waits_s = max(0.0, self._free_at - now)
        if waits_s > self.settings.queue_ms / 1000:
            return None
        self._free_at = now + waits_s + (size_bytes + _HEADERS_BYTES) * 8 / (self.settings.rate_kbps * 1000)
        return self._free_at
