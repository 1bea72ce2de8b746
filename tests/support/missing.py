"""Tests that want what is not there."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_but_in_ci(reason: str) -> NoReturn:
    """What is missing could be installed, and in CI it is: there its absence is a failure. Also for a whole module."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason, allow_module_level=True)
