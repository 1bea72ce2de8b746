"""The package imports only downwards, the two planes keep apart, and what stands beside it shares by the lab alone."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rtc_server"

# Lowest first: rooms (sub-packages), and the modules at the top. Each may import from lower levels, and from itself.
LEVELS: list[set[str]] = [
    {"errors", "metrics", "audio", "bundled"},
    {"protocols", "system", "usage"},
    {"config", "access", "engine", "media"},
    {"models", "decoding", "tracks", "turn", "web", "cluster"},
    {"translation"},
    {"services", "transcription", "rooms"},
    {"sessions"},
    {"webrtc"},
    {"signaling", "client"},
    {"endpoints"},
    {"worker"},
    {"app"},
    {"cli"},
    {"__main__"},
]
# What stands beside the package, and what each may import of ours. The tests of one (tests/bench, ...) import it too.
BESIDE: dict[str, set[str]] = {
    "lab": {"rtc_server"},
    **{name: {"rtc_server", "lab"} for name in ("bench", "training", "fuzz", "tools")},
    "examples": {"rtc_server"},
    "tests": {"rtc_server", "lab", "tools"},
}
OURS = {"rtc_server", *BESIDE}
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(path: Path) -> str:
    """The entry of LEVELS that a file belongs to: the module, or the sub-package it is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache  # several tests look at each file
def imported_names(path: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative imports hide edges from this test"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def edges(path: Path) -> set[str]:
    """The parts of this package that a file imports."""
    inside = (name.split(".")[1] for name in imported_names(path) if name.startswith("rtc_server."))
    return {name for name in inside if name in LEVEL_OF}


def test_few_modules_stand_outside_the_rooms() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 14


def test_every_room_says_what_it_owns() -> None:
    rooms = [path for top in (PACKAGE, ROOT / "lab") for path in (top, *top.iterdir()) if any(path.glob("*.py"))]
    assert [room.name for room in rooms if not ast.get_docstring(ast.parse((room / "__init__.py").read_text()))] == []


def test_every_module_has_a_level() -> None:
    assert {part_of(path) for path in modules()} == set(LEVEL_OF)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_downwards(path: Path) -> None:
    part = part_of(path)
    upward = {other for other in edges(path) if other != part and LEVEL_OF[other] >= LEVEL_OF[part]}
    assert not upward, f"{path.name} (level {LEVEL_OF[part]}) imports {upward} from its own level or above"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_package_needs_nothing_that_stands_beside_it(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported_names(path)} & set(BESIDE)


def neighbours() -> list[Path]:
    return sorted(path for name in BESIDE for path in (ROOT / name).rglob("*.py") if "node_modules" not in path.parts)


def not_allowed(path: Path) -> set[str]:
    """Which of ours a module that stands beside the package imports and may not; ``path``: from the root on."""
    top, room = path.parts[:2]
    allowed = {top, *BESIDE[top]} | ({room} if top == "tests" else set())
    return ({name.split(".")[0] for name in imported_names(ROOT / path)} & OURS) - allowed


def test_what_stands_beside_the_package_shares_by_the_lab_alone() -> None:
    """What more than one of them needs has its place in lab/."""
    found = {str(path): not_allowed(path) for path in (each.relative_to(ROOT) for each in neighbours())}
    assert {path: names for path, names in found.items() if names} == {}


def test_another_import_beside_the_package_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check can fail."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    for path, refused in {
        "bench/a.py": {"tests", "fuzz"},
        "lab/a/b.py": {"tests", "bench", "fuzz"},
        "tests/fuzz/a.py": {"bench"},
    }.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(
            "import tests.conftest, fuzz.attacks\nfrom bench import load\nfrom lab import waiting\n"
        )
        assert not_allowed(Path(path)) == refused


def circle(files: list[Path]) -> list[str]:
    """Modules that import each other in a circle; empty if none do. What is imported within a function counts too."""
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}
    graph = {
        module: {part for name in imported_names(path) for part in (name, name.rpartition(".")[0]) if part in named}
        - {module}
        for module, path in named.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle([*modules(), *neighbours()]) == []


def test_a_circle_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "b.py").write_text("def later() -> None:\n    from a import something\n")
    assert set(circle([tmp_path / "a.py", tmp_path / "b.py"])) == {"a", "b"}


def test_an_upward_import_would_be_seen(tmp_path: Path) -> None:
    """The check can fail: a module of level 0 that imports the registry is caught."""
    module = tmp_path / "audio.py"
    module.write_text("from rtc_server.sessions.registry import Registry\nfrom rtc_server import cli\n")
    assert {LEVEL_OF[name] > LEVEL_OF["audio"] for name in edges(module)} == {True}
    assert edges(module) == {"sessions", "cli"}


@pytest.mark.parametrize("path", [p for p in modules() if part_of(p) == "engine"], ids=lambda path: path.name)
def test_the_engine_never_imports_the_media_stack(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported_names(path)} & {"aiohttp", "aiortc", "av"}


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("rtc_server.app", {"torch", "moshi", "ray"}),
        ("rtc_server.engine.process", {"aiohttp", "aiortc", "torch"}),
        ("rtc_server.decoding.nursery", {"aiohttp", "aiortc", "torch"}),
        ("rtc_server.translation.process", {"aiohttp", "aiortc", "torch"}),
    ],
)
def test_what_a_plane_loads(module: str, forbidden: set[str]) -> None:
    """By what really gets loaded, third parties included."""
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not forbidden & set(loaded)
    assert "numpy" in loaded
