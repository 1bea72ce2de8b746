"""Draws the journals of a run: one picture, a curve for every figure."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

_SHOWN: Final = {
    "hearing": ("loss", "right", "penalty"),
    "adapting": ("right", "words", "wrote", "same", "apart"),
    "language": ("text", "audio", "wrote", "codes", "words"),
    "polishing": ("spectral", "wave"),
    "transcription": ("loss", "wrote"),
    "transcription-pt": ("loss", "wrote"),
}


def plot(directory: Path) -> Path:
    """``losses.png`` in ``directory``, of the journals that are there."""
    journals = [(name, directory / f"{name}.csv") for name in _SHOWN if (directory / f"{name}.csv").exists()]
    figure, axes = pyplot.subplots(len(journals), 1, figsize=(8, 3 * len(journals)), squeeze=False)
    for axis, (name, path) in zip(axes[:, 0], journals, strict=True):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for column in _SHOWN[name]:
            axis.plot([int(row["step"]) for row in rows], [float(row[column]) for row in rows], label=column)
        axis.set_title(name)
        axis.set_xlabel("step")
        axis.set_ylim(bottom=0)
        axis.legend()
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(directory / "losses.png", dpi=80)
    return directory / "losses.png"
