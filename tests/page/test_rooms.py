"""The page's modules have rooms as the package's have, and import only downwards."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

from tests.support.page_modules import STATIC

ROOMS: Final = ("connection", "conversation", "page", "transcription", "rooms", "")
"""Lowest first; each may import from those before it, and from itself. The last is ``static/`` with ``main.js``."""
FIRST: Final = {"index.html": "main.js", "rooms.html": "rooms/main.js"}
"""Of each page the module that imports the others."""
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


def all_imported_by(module: str) -> set[str]:
    """It, and what it imports by way of others."""
    found, waiting = {module}, [module]
    while waiting:
        further = imported_by(waiting.pop()) - found
        found |= further
        waiting += further
    return found


def test_every_module_but_the_first_is_imported() -> None:
    """What no module asks for is loaded for nothing."""
    wanted = set[str]().union(*map(imported_by, MODULES))
    assert wanted == set(MODULES) - set(FIRST.values())


@pytest.mark.parametrize("page", FIRST)
def test_a_page_loads_all_its_modules_at_once(page: str) -> None:
    """Not one after the other, as each is found in the one before: far from the server that takes seconds."""
    text = (STATIC / page).read_text(encoding="utf-8")
    named = re.findall(r'(?:modulepreload" href|script type="module" src)="static/([^"]+)"', text)
    assert sorted(named) == sorted(all_imported_by(FIRST[page]))
