"""Triton in tests: where it is, and on what its kernels run. On a GPU where there is one, else in its interpreter."""

from __future__ import annotations

import importlib.util
from typing import Final

import pytest
import torch

from tests.support.missing import skip_but_in_ci

DEVICE: Final = "cuda" if torch.cuda.is_available() else "cpu"


def need_triton() -> None:
    """Skip the test where it is missing; in CI, where it can be installed, fail. ``tests/models/conftest.py`` chooses
    the interpreter, and must have done so before triton was imported."""
    if importlib.util.find_spec("triton") is None:
        skip_but_in_ci("needs triton, which there is for Linux on x86-64: pip install -e '.[triton]'")
    from triton.runtime.interpreter import InterpretedFunction

    from rtc_server.models.kyutai.page_kernel import read_parts

    if isinstance(read_parts, InterpretedFunction) != (DEVICE == "cpu"):
        pytest.fail("triton was imported before tests/models/conftest.py could choose how its kernels run")
