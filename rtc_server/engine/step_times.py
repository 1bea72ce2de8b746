"""What the last steps of an engine took, and what one with another conversation in it would take. Pure: no clock.

A step costs a time of its own and a part for each of its rows. Both are read off steps that had different numbers of
rows, by the median of the slopes between each two (https://doi.org/10.1080/01621459.1968.10480934): a step that was
held up by something else, or a few, do not matter.
"""

from __future__ import annotations

import itertools
import statistics
from collections import deque
from typing import Final

_RECENT_STEPS: Final = 64
_FEWEST: Final = _RECENT_STEPS // 2
"""Steps that mean something; and pairs of them, of different numbers of rows."""


class StepTimes:
    """Of one engine, of its last steps, in seconds. None where there were too few to mean something."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque(maxlen=_RECENT_STEPS)

    def add(self, seconds: float, rows: int) -> None:
        """A step has taken so long. ``rows``: 0 where that is not known."""
        self._steps.append((seconds, rows))

    def clear(self) -> None:
        """They were of a load that is long over."""
        self._steps.clear()

    @property
    def seconds(self) -> list[float]:
        return [seconds for seconds, _ in self._steps]

    @property
    def p50(self) -> float | None:
        return statistics.median(self.seconds) if len(self._steps) >= _FEWEST else None

    @property
    def p95(self) -> float | None:
        return statistics.quantiles(self.seconds, n=20)[-1] if len(self._steps) >= _FEWEST else None

    def expected(self, rows: int) -> float | None:
        """What a step of so many rows takes, no less than the median: of steps of ever as many rows nothing is learnt
        of what a row costs."""
        median = self.p50
        if median is None:
            return None
        known = [(seconds, each) for seconds, each in self._steps if each]
        slopes = [(one - other) / (a - b) for (one, a), (other, b) in itertools.combinations(known, 2) if a != b]
        if len(slopes) < _FEWEST:
            return median
        of_a_row = max(0.0, statistics.median(slopes))
        return max(median, statistics.median(seconds + of_a_row * (rows - each) for seconds, each in known))
