"""What the stretches of the training do alike: a step of the optimizer, its rate, batches ahead of time, and a file to
go on from.

Knows no model and no loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn


def descend(optimizer: torch.optim.Optimizer, figures: Mapping[str, torch.Tensor], rate: float) -> dict[str, float]:
    """One step down ``figures["loss"]``; all figures as numbers, and the gradient's size before it was clipped."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    figures["loss"].backward()  # type: ignore[no-untyped-call]
    gradient = nn.utils.clip_grad_norm_([one for group in optimizer.param_groups for one in group["params"]], 1.0)
    optimizer.step()
    return {name: float(value.detach()) for name, value in {**figures, "gradient": gradient}.items()}


def rate_at(step: int, steps: int, rate: float, warm_up: int) -> float:
    """Up to ``rate`` in ``warm_up`` steps, and down to a fiftieth of it by the last, as half a cosine."""
    warm = min(1.0, (step + 1) / warm_up)
    return rate * warm * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)


def save(path: Path, step: int, optimizer: torch.optim.Optimizer, **modules: nn.Module) -> None:
    """All that a run needs to go on; the file is the old one or the new one, never half of one."""
    state = {name: module.state_dict() for name, module in modules.items()}
    unfinished = path.with_suffix(".new")
    torch.save(state | {"step": step, "optimizer": optimizer.state_dict()}, unfinished)
    unfinished.replace(path)


def resume(path: Path, optimizer: torch.optim.Optimizer, **modules: nn.Module) -> int:
    """Go on from what :func:`save` wrote, if it did; the step that was reached."""
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    for name, module in modules.items():
        module.load_state_dict(saved[name])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])


def prefetched(make: Callable[[], Any]) -> Iterator[Any]:
    """Batches for ever, the next one made while the last is used."""
    with ThreadPoolExecutor(1) as executor:
        coming = executor.submit(make)
        while True:
            ready, coming = coming.result(), executor.submit(make)
            yield ready
