"""What learns, learns in numbers that the processor is quick with."""

from __future__ import annotations

import torch

from training.precision import narrowed, narrowest


def test_products_are_as_narrow_as_the_processor_is_quick_with() -> None:
    """And what is not a product stays as it was."""
    one = torch.ones(2, 2)
    with narrowed():
        assert (one @ one).dtype is narrowest()
    assert (one @ one).dtype is torch.float32


def test_a_processor_without_bfloat16_keeps_float32() -> None:
    quick = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert narrowest() is (torch.bfloat16 if quick else torch.float32)
