"""Options of the moshi package's models. Imports no torch: the media plane plans engines with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Quantize = Literal["none", "int8"]
KvDtype = Literal["auto", "bfloat16", "float16", "float8"]


@dataclass(frozen=True, slots=True)
class KyutaiOptions:
    """What to load and how to run it.

    ``model``: a hub repository id, a directory, or the name of a bundled model. ``slots``: rows of the batch, fixed
    for the model's life.
    ``device``: ``cpu``, ``cuda`` or ``cuda:N``. ``dtype``: of the language model (Mimi is always float32);
    ``auto`` is bfloat16 on CUDA and float32 on a CPU. ``quantize``: its linear layers to int8 while it is loaded.
    ``kv_dtype``: of what attention remembers; ``auto`` is the weights'. ``context``: frames of 80 ms that attention
    looks back over; None takes the checkpoint's. A smaller one costs less memory and time.
    ``temp`` and ``top_k`` are for audio, ``temp_text`` and ``top_k_text`` for text; temperature 0 always takes
    the likeliest token. None takes the checkpoint's ``lm_gen_config``, else the moshi package's default.
    ``seed``: of sampling; None draws one. ``threads``: of torch in this process (not of this model alone).
    ``cfg_coef``: classifier-free guidance of a conditioned model (Hibiki); other than 1 doubles the batch.
    ``pages``: how many pages of attention's memory there are for all slots; 0: each slot has as much as it can fill;
    None: as many as the device has memory for when the weights are there. ``beside``: other models that the same server
    has on the same device, for which memory is left then; ``translators``: those of the transformers package.
    """

    model: str
    slots: int
    device: str = "cpu"
    dtype: Dtype = "auto"
    quantize: Quantize = "none"
    kv_dtype: KvDtype = "auto"
    context: int | None = None
    temp: float | None = None
    temp_text: float | None = None
    top_k: int | None = None
    top_k_text: int | None = None
    seed: int | None = None
    threads: int | None = None
    cfg_coef: float = 1.0
    pages: int | None = 0
    beside: tuple[KyutaiOptions, ...] = ()
    translators: tuple[str, ...] = ()
