"""The page's modules have rooms as the package's have, and import only downwards."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

from tests.support.page_modules import STATIC

ROOMS: Final = ("connection", "conversation", "page", "transcription", "")
"""Lowest first; each may import from those before it, and from itself. The last is ``static/`` with ``main.js``."""
_IMPORT: Final = re.compile(r"(?:\bfrom |\bimport\(|^import )'(\.{1,2}/[^']+)'", re.MULTILINE)
MODULES: Final = sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*.js"))


def room_of(module: str) -> str:
    return module.rpartition("/")[0]


def imported_by(module: str) -> set[str]:
    here = STATIC / module
    found = _IMPORT.findall(here.read_text(encoding="utf-8"))
    return {(here.parent / name).resolve().relative_to(STATIC).as_posix() for name in found}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_downwards(module: str) -> None:
    for other in imported_by(module):
        assert Path(STATIC, other).is_file(), f"{module} imports {other}, which is not there"
        assert ROOMS.index(room_of(other)) <= ROOMS.index(room_of(module)), f"{module} imports {other}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert list(TopologicalSorter({module: imported_by(module) for module in MODULES}).static_order())


def test_every_module_but_the_first_is_imported() -> None:
    """What no module asks for is loaded for nothing."""
    wanted = set[str]().union(*map(imported_by, MODULES))
    assert wanted == set(MODULES) - {"main.js"}
