"""In which numbers the language models learn: bfloat16 where the processor multiplies it, float32 where it would only
be pretended to, forty times as slow (AVX2).

Owns the choice. Knows no model.
"""

from __future__ import annotations

from functools import cache

import torch


@cache
def narrowest() -> torch.dtype:
    """What this processor is quick with."""
    quick = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if quick else torch.float32


def narrowed() -> torch.autocast:
    """A context in which products are computed in :func:`narrowest`."""
    return torch.autocast("cpu", torch.bfloat16, enabled=narrowest() is torch.bfloat16)
