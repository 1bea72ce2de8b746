"""What passes between the host and the device in a step: one transfer there, one back, and no other wait.

Owns the buffers and what lies where in them. On CUDA they are page-locked on the host, so that neither copy holds it up
before it has to wait for the answers; on a CPU the device reads the host's own. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.model import BoolArray, FloatArray

_MASKS: Final = 3
_ROWS: Final = 1


class Exchange:
    """Of a batch of ``slots`` rows. ``frames``: audio, float32, shape [slots, 1, 1920]. ``noise``: random numbers,
    float32, shape [slots, ``noise_width``]; ``host_noise``: the same on the host, to be filled before :meth:`send`.
    ``places``, ``host_places``: likewise, shape [slots, ``places_width``], for pages of attention's memory.
    ``heard``, ``active``, ``ready``: masks of rows, float32, shape [slots], 1 or 0. ``rows``: which ones the step is
    about, float32, shape [slots]. In a step of fewer all that is first there.

    Addresses never change: graphs read them.
    """

    def __init__(self, slots: int, noise_width: int, device: torch.device, places_width: int = 0) -> None:
        parts = FRAME_SAMPLES, noise_width, _MASKS + _ROWS, places_width
        self._apart = device.type != "cpu"
        self._host = torch.ones((slots, sum(parts)), dtype=torch.float32, pin_memory=device.type == "cuda")
        self._there = self._host.to(device) if self._apart else self._host
        self._back = torch.empty(0, dtype=torch.float32)
        written: list[FloatArray] = [part.numpy() for part in self._host.split_with_sizes(parts, dim=1)]
        self._host_frames, self.host_noise, self._host_masks, self.host_places = written
        frames, self.noise, masks, self.places = self._there.split_with_sizes(parts, dim=1)
        self.frames = frames[:, None]
        self.heard, self.active, self.ready, self.rows = masks.unbind(1)

    def send(
        self,
        pcm: FloatArray,
        heard: BoolArray,
        active: BoolArray,
        ready: BoolArray,
        rows: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Send a step's input: ``pcm``, shape [slots, 1920], of rows that are heard, silence of the others; all with
        the ``rows`` that the step is about alone, in their order, if not with all. The answers of the step before have
        been received."""
        if rows is not None:
            pcm, heard, active, ready = pcm[rows], heard[rows], active[rows], ready[rows]
            self._host_masks[: len(rows), _MASKS] = rows
        count = len(heard)
        self._host_frames[:count] = pcm
        self._host_frames[:count][~heard] = 0.0
        for column, mask in enumerate((heard, active, ready)):
            self._host_masks[:count, column] = mask
        if self._apart:
            self._there[:count].copy_(self._host[:count], non_blocking=True)

    def receive(self, answers: Sequence[torch.Tensor]) -> list[FloatArray]:
        """Wait for these, each of shape [slots, ...] and of numbers that float32 holds: the same, as float32, shape
        [slots, numbers]. They are good until the next call."""
        flat = [answer.flatten(1).float() for answer in answers]
        together = torch.cat(flat, dim=1) if len(flat) > 1 else flat[0]
        fetched = self._fetched(together) if self._apart else together
        return list(np.split(fetched.numpy(), np.cumsum([each.shape[1] for each in flat])[:-1], axis=1))

    def _fetched(self, together: torch.Tensor) -> torch.Tensor:
        if self._back.numel() < together.numel():
            self._back = torch.empty(together.numel(), dtype=torch.float32, pin_memory=True)
        back = self._back[: together.numel()].view(together.shape)
        back.copy_(together, non_blocking=True)
        torch.cuda.current_stream(together.device).synchronize()
        return back
