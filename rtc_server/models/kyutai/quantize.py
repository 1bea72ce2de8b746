"""Language models with int8 weights, by the moshi package's own linear layer, whose arithmetic is bitsandbytes'.

Owns how a quantised checkpoint is loaded, how any other is quantised while it is, and what that takes.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Final

import torch
from moshi.models import loaders
from moshi.models.lm import LMModel
from moshi.utils.quantize import replace_linear_with_qlinear

from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai.options import Quantize

_ALWAYS_FLOAT32: Final = ("condition_provider.", "fuser.")
_SCALE: Final = "weight_scb"
_SCALE_BYTES: Final = 4
_INSTALL_HINT: Final = "Install it (pip install 'bitsandbytes>=0.49,<1'), or use the checkpoint in bfloat16."


def is_quantized(checkpoint: loaders.CheckpointInfo) -> bool:
    """Whether its weights are int8 already (``quantize`` in config.json)."""
    return bool((checkpoint.lm_config or {}).get("quantize"))


def load_lm(
    checkpoint: loaders.CheckpointInfo,
    device: torch.device,
    dtype: torch.dtype,
    quantize: Quantize,
    overrides: dict[str, Any],
) -> LMModel:
    """``checkpoint.get_moshi``, with int8 weights where the checkpoint has them or ``quantize`` asks for them.

    What is not quantised (embeddings, norms) is of ``dtype``. Raises ModelLoadError where that cannot be done.
    """
    if is_quantized(checkpoint):
        _require_bitsandbytes()
        # The package casts the scales along with everything else, and then refuses to run with any but float32.
        lm = checkpoint.get_moshi(device, torch.float32, lm_kwargs_overrides=overrides)
        _cast(lm, dtype)
        return lm
    if quantize == "none":
        return checkpoint.get_moshi(device, dtype, lm_kwargs_overrides=overrides)
    _require_bitsandbytes()
    lm = checkpoint.get_moshi("cpu", dtype, lm_kwargs_overrides=overrides)
    if any(linear.bias is not None for linear in _linears(lm)):
        raise ModelLoadError("The model has linear layers with a bias, which cannot be quantised.", "Leave --quantize.")
    # Layer by layer, so that the device never holds more than the model will.
    for layer in (*lm.transformer.layers, *(lm.depformer.layers if lm.depformer else ())):
        layer.to(device)
        replace_linear_with_qlinear(layer)  # type: ignore[no-untyped-call]
    replace_linear_with_qlinear(lm.to(device))  # type: ignore[no-untyped-call]
    return lm


def saved_bytes(lm: LMModel) -> int:
    """By how much int8 weights, a scale for each row included, are smaller than those of ``lm``, which is not
    quantised."""
    return sum(
        linear.weight.numel() * (linear.weight.element_size() - 1) - linear.out_features * _SCALE_BYTES
        for linear in _linears(lm)
    )


def _linears(lm: LMModel) -> list[torch.nn.Linear]:
    return [module for module in lm.modules() if isinstance(module, torch.nn.Linear)]


def _cast(lm: LMModel, dtype: torch.dtype) -> None:
    for name, parameter in lm.named_parameters():
        if parameter.is_floating_point() and not name.startswith(_ALWAYS_FLOAT32) and not name.endswith(_SCALE):
            parameter.data = parameter.data.to(dtype)


def _require_bitsandbytes() -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelLoadError("Weights of int8 need the package bitsandbytes, which is not installed.", _INSTALL_HINT)
