"""Token buckets: one, and one for each of many clients. Pure; time is an argument, in monotonic seconds."""

from __future__ import annotations

from collections import OrderedDict


class TokenBucket:
    """Lets ``burst`` events through at once and ``rate_per_s`` in the long run."""

    def __init__(self, rate_per_s: float, burst: int, now: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = float(burst)
        self._at = now

    def allow(self, now: float, events: float = 1) -> bool:
        """Whether so many more events may pass now; if so, they are counted."""
        self._tokens = min(float(self._burst), self._tokens + (now - self._at) * self._rate_per_s)
        self._at = now
        if self._tokens < events:
            return False
        self._tokens -= events
        return True

    def wait_s(self) -> float:
        """Seconds from the last call of :meth:`allow` until the next event may pass."""
        return max(0.0, 1 - self._tokens) / self._rate_per_s


class Buckets:
    """A bucket for each name. At most ``limit`` are kept; then the one that was not seen for longest is forgotten."""

    def __init__(self, rate_per_s: float, burst: int, limit: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._limit = limit
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, name: str, now: float) -> float:
        """0: one more event of ``name`` may pass now, and is counted. Else the seconds until one may."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = TokenBucket(self._rate_per_s, self._burst, now)
            if len(self._buckets) > self._limit:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        return 0.0 if bucket.allow(now) else bucket.wait_s()
