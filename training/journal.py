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
        self._count = 0
        self._since = time.monotonic()

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if step % self._every == 0:
            self._write(step)

    def _write(self, step: int) -> None:
        means = {name: total / self._count for name, total in self._sums.items()}
        seconds = (time.monotonic() - self._since) / self._count
        row = {"step": str(step), **{name: f"{value:.5g}" for name, value in means.items()}, "s": f"{seconds:.3f}"}
        new = not self._path.exists()
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(" ".join(f"{name}={value}" for name, value in row.items()), flush=True)
        self._sums, self._count, self._since = {}, 0, time.monotonic()
