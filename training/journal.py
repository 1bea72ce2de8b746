"""Figures of a training run, step by step: a CSV file, and a line on the terminal now and then."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from pathlib import Path


class Journal:
    """Appends to ``path`` the mean of every ``every`` steps, so that a resumed run goes on in the same file."""

    def __init__(self, path: Path, every: int = 20) -> None:
        self._path = path
        self._every = every
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._steps = 0
        self._since = time.monotonic()

    def add(self, step: int, figures: Mapping[str, float], *, last: bool = False) -> None:
        """``last``: of the run, so that nothing is kept back."""
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._steps += 1
        if last or step % self._every == 0:
            self._write(step)

    def _write(self, step: int) -> None:
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        seconds = (time.monotonic() - self._since) / self._steps
        row = {"step": str(step), **{name: f"{value:.5g}" for name, value in means.items()}, "s": f"{seconds:.3f}"}
        names = self._columns()
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names or list(row))
            if not names:
                writer.writeheader()
            writer.writerow(row)
        print(" ".join(f"{name}={value}" for name, value in row.items()), flush=True)
        self._sums, self._counts, self._steps, self._since = {}, {}, 0, time.monotonic()

    def _columns(self) -> list[str]:
        """Of the file, if it has been begun."""
        if not self._path.exists():
            return []
        with self._path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file))
