"""A token bucket. Pure; time is an argument, in monotonic seconds."""

from __future__ import annotations


class TokenBucket:
    """Lets ``burst`` events through at once and ``rate_per_s`` in the long run."""

    def __init__(self, rate_per_s: float, burst: int, now: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = float(burst)
        self._at = now

    def allow(self, now: float) -> bool:
        """Whether one more event may pass now; if so, it is counted."""
        self._tokens = min(float(self._burst), self._tokens + (now - self._at) * self._rate_per_s)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
