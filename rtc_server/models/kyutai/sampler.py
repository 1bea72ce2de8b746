"""Chance of its own for each row: what a row samples depends on no other row, and goes on elsewhere as it would here.

Owns the random numbers of sampling and how they get into the moshi package's generator, which draws for the whole batch
from one source. They come from a counter-based generator (Philox): the key of a row and the number of its step say it
all, on every device.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from moshi.models.lm import LMGen

from rtc_server.engine.model import BoolArray, FloatArray

_LEAST: Final = float(np.finfo(np.float32).tiny)
"""Of a random number that something is divided by."""


class RowSampler:
    """Of a batch of rows. ``host_noise``: float32, shape [rows, :func:`noise_width`], filled by :meth:`draw`;
    ``noise``: the same on the device, when a step runs. ``seed``: of the rows' keys; None draws one.

    A token is chosen as the package does it: by the largest quotient of its probability and an exponentially
    distributed number.
    """

    def __init__(self, lm_gen: LMGen, host_noise: FloatArray, noise: torch.Tensor, seed: int | None) -> None:
        """Takes over the choice of tokens in ``lm_gen``, which is not streaming yet."""
        self._seed = seed
        self._dep_q: int = lm_gen.lm_model.dep_q
        self._next_codebook = 0
        self._philox = np.random.Philox()
        self._generator = np.random.Generator(self._philox)
        self._state: Any = self._philox.state
        self._text_width, self._audio_width = _widths(lm_gen)
        self._host = host_noise
        self._noise = noise
        self.keys = np.zeros((len(host_noise), 2), dtype=np.uint64)
        self._drawn = np.ones_like(host_noise)
        self._drawn_keys = np.zeros_like(self.keys)
        self._drawn_steps = np.full(len(host_noise), -1, dtype=np.int64)
        self.reseed()
        generator: Any = lm_gen
        generator._step = types.MethodType(_sampling_by(LMGen._step, self._choose_text), lm_gen)
        generator.depformer_step = types.MethodType(_sampling_by(LMGen.depformer_step, self._choose_audio), lm_gen)

    def reseed(self) -> None:
        """Begin again: every row gets a new key."""
        self._keys_from = np.random.default_rng(self._seed)
        self.renew(range(len(self.keys)))

    def renew(self, rows: Iterable[int]) -> None:
        """Give each of these rows a new key, for a new conversation."""
        for row in rows:
            self.keys[row] = self._keys_from.integers(0, 2**64, size=2, dtype=np.uint64)

    def draw_ahead(self, rows: BoolArray, steps: npt.NDArray[np.int64]) -> None:
        """The numbers of these rows for the step of this number, while there is time: if that is their next,
        :meth:`draw` has little to do."""
        if not self._host.shape[1]:
            return
        for row in np.flatnonzero(rows).tolist():
            self._state["state"]["key"][:] = self.keys[row]
            self._state["state"]["counter"][:] = (0, 0, steps[row], 0)
            self._philox.state = self._state
            self._generator.standard_exponential(dtype=np.float32, out=self._drawn[row])
            np.maximum(self._drawn[row], _LEAST, out=self._drawn[row])
        self._drawn_keys[rows] = self.keys[rows]
        self._drawn_steps[rows] = steps[rows]

    def draw(self, active: BoolArray, steps: npt.NDArray[np.int64], rows: npt.NDArray[np.int64] | None = None) -> None:
        """The numbers of the active rows for the step that follows, which is the one of this number. ``rows``: those
        that it computes, in this order, if not all."""
        there = (self._drawn_steps == steps) & (self._drawn_keys == self.keys).all(axis=1)
        self.draw_ahead(active & ~there, steps)
        count = len(active) if rows is None else len(rows)
        self._host[:count] = self._drawn if rows is None else self._drawn[rows]

    def _choose_text(
        self, logits: torch.Tensor, use_sampling: bool, temp: float = 1.0, top_k: int = 0, top_p: float = 0.0
    ) -> torch.Tensor:
        return _choose(logits, temp, self._noise[: len(logits), : self._text_width])

    def _choose_audio(
        self, logits: torch.Tensor, use_sampling: bool, temp: float = 1.0, top_k: int = 0, top_p: float = 0.0
    ) -> torch.Tensor:
        """Called for one codebook after the other, when a graph is captured as well."""
        start = self._text_width + self._next_codebook * self._audio_width
        self._next_codebook = (self._next_codebook + 1) % self._dep_q
        return _choose(logits, temp, self._noise[: len(logits), start : start + self._audio_width])


def noise_width(lm_gen: LMGen) -> int:
    """How many random numbers a row needs for a step."""
    text, audio = _widths(lm_gen)
    return text + lm_gen.lm_model.dep_q * audio


def _widths(lm_gen: LMGen) -> tuple[int, int]:
    """Of what a text token takes, and one of audio."""
    text = _candidates(lm_gen, lm_gen.temp_text, lm_gen.top_k_text, lm_gen.lm_model.text_card)
    return text, _candidates(lm_gen, lm_gen.temp, lm_gen.top_k, lm_gen.lm_model.card)


def _candidates(lm_gen: LMGen, temp: float, top_k: int, card: int) -> int:
    """Among how many tokens chance decides; 0 if it does not."""
    if not lm_gen.use_sampling or temp <= 0:
        return 0
    return min(top_k, card) if top_k > 0 else card


def _choose(logits: torch.Tensor, temp: float, noise: torch.Tensor) -> torch.Tensor:
    """Tokens, int64, from logits of shape [slots, 1, 1, card]; of as many candidates as ``noise``, [slots, candidates],
    has."""
    candidates = min(noise.shape[1], logits.shape[-1])
    if not candidates:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits / temp, dim=-1)
    likeliest, tokens = torch.topk(probabilities, candidates, dim=-1)
    chosen = (likeliest / noise[:, None, None, :candidates]).argmax(dim=-1, keepdim=True)
    return tokens.gather(-1, chosen)[..., 0]


def _sampling_by(function: Callable[..., Any], choose: Callable[..., torch.Tensor]) -> types.FunctionType:
    """The package's function, with another choice of tokens than its module's: in this generator, and in no other."""
    inner: Any = inspect.unwrap(function)
    names = inner.__globals__ | {"sample_token": choose}
    return types.FunctionType(inner.__code__, names, inner.__name__, inner.__defaults__, inner.__closure__)
