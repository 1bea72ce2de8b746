"""How a run with several workers (``pytest -n 3 --dist loadfile``) is shared out. What hears sound as it comes goes to
the first worker, a file at a time. What only computes runs beside it and gives way: see :data:`GIVES_WAY`; so does
what waits for no browser and holds without much of a core. All else comes after these.

Knows files, not tests: the tests of a file run in one worker, in their order.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from xdist.scheduler.loadfile import LoadFileScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

_ROOT: Final = Path(__file__).parents[2]


ALONE: Final = frozenset(
    path.relative_to(_ROOT).as_posix()
    for path in (_ROOT / "tests").glob("*/test_*.py")
    if "pytest.mark.alone" in path.read_text()
)
"""Files that measure sound as it comes, or speak with a model that answers as it hears: two at a time would change what
they hear, and they say so by a mark. All else holds on a machine that has other work."""
GIVES_WAY: Final = 15
"""The niceness of a worker from its first test on that hears nothing. It gets a thirtieth of a core that one that hears
wants as well."""
COMPUTE: Final = (
    *("training", "models", "test_wheel.py", "test_log_watch.py", "translation", "bench", "media", "decoding"),
    *("test_layers.py", "transcription", "protocols", "test_config.py", "access", "lab", "page"),
    *("test_dependencies.py", "fuzz", "test_audio.py", "test_errors.py"),
)
"""Rooms, and files at the top, that may give way, those that take longest first: they compute in a worker or in its
children, and wait for nothing that some slow seconds would change."""
HOLDS: Final = (
    *("tests/engine/", "tests/rooms/", "tests/sessions/", "tests/deploy/", "tests/integration/uploads/"),
    *("tests/integration/test_bad_offers.py", "tests/integration/test_live_misuse.py"),
    *("tests/integration/test_translate_files.py", "tests/integration/test_asr_model.py"),
    *("tests/integration/test_captions_off.py", "tests/integration/test_asr_ends.py"),
    *("tests/integration/test_openai_trouble.py", "tests/integration/test_openai_strangers.py"),
    *("tests/integration/test_openai_realtime_calls.py", "tests/integration/test_moshi.py"),
    *("tests/integration/test_shutdown.py", "tests/integration/test_transcribe_files.py"),
    *("tests/cluster/test_pooled.py", "tests/cluster/test_emptying.py"),
)
"""How the paths begin of what may run beside what hears too, when nothing is left that computes. It waits with patience
or by a clock of its own, takes no client for lost that is silent for some seconds, compares no sound that came in time,
and starts no program in a session of its own (``start_new_session``), which would give way to nothing."""
HOLDS_BESIDE: Final = True
"""With False nothing of :data:`HOLDS` runs beside what hears."""
WAIT: Final = ("browser", "foreign", "integration")
"""Rooms that wait for browsers and programs, each a while at most: they come last, those with the longest files first.
Browsers are sessions of their own, which give way to nothing."""
LONG: Final = (
    "tests/training/test_recipe.py",
    "tests/cluster/test_ray.py",
    "tests/integration/test_workers.py",
    "tests/integration/test_shutdown.py",
    "tests/integration/test_transcribe_files.py",
    "tests/integration/test_resume.py",
    "tests/integration/test_leaks.py",
    "tests/integration/test_deploy_lines.py",
    "tests/integration/test_asr_model.py",
)
"""Files that take half a minute or more: the first of their room, so that no worker is left alone with one."""

_NEEDED: Final = 2


class Shares(LoadFileScheduling):
    """While files of :data:`ALONE` are left, the first worker runs them, and the others what computes, or wait."""

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        waited = self._is_alone
        super().mark_test_complete(node, item_index, duration)
        if waited and not self._is_alone:
            for other in self.nodes:
                self._reschedule(other)

    def _reschedule(self, node: WorkerController) -> None:
        super()._reschedule(node)
        # A worker begins a test when it knows the next one.
        if self._files_for(node) and self._pending_of(self.assigned_work[node]) < _NEEDED:
            self._reschedule(node)

    def _assign_work_unit(self, node: WorkerController) -> None:
        files = self._files_for(node)
        if files:
            self.workqueue.move_to_end(min(files, key=_turn), last=False)
            super()._assign_work_unit(node)

    def _files_for(self, node: WorkerController) -> list[str]:
        willing = [each for each in self.nodes if not each.shutting_down]
        if node in willing[1:] and self._is_alone:
            return [file for file in self.workqueue if may_run_beside(file)]
        return list(self.workqueue) if node in willing else []

    @property
    def _is_alone(self) -> bool:
        left = [self.workqueue, *self.assigned_work.values()]
        return any(not all(files.get(file, {}).values()) for files in left for file in ALONE)


def may_run_beside(file: str) -> bool:
    """Whether what hears sound as it comes is not disturbed by it, nor it by that."""
    return file not in ALONE and (_room(file) in COMPUTE or (HOLDS_BESIDE and file.startswith(HOLDS)))


def _room(file: str) -> str:
    return file.removeprefix("tests/").partition("/")[0]


def _turn(file: str) -> tuple[bool, int, bool]:
    room = _room(file)
    if room in COMPUTE:
        return file not in ALONE, COMPUTE.index(room) - len(COMPUTE), file not in LONG
    return file not in ALONE, WAIT.index(room) + 1 if room in WAIT else 0, file not in LONG


# What pytest and pytest-xdist call, where it is asked for: tests/conftest.py takes it in.


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Shares | None:
    return Shares(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_runtest_logstart(nodeid: str) -> None:
    """In a worker: what hears is over here."""
    if "PYTEST_XDIST_WORKER" in os.environ and nodeid.partition("::")[0] not in ALONE and os.getsid(0) != os.getpid():
        _give_way()


def _give_way() -> None:
    """Linux may share a machine out among sessions before it looks at niceness within one (sched(7), autogroup): as a
    session of its own, which is as nice."""
    os.setsid()
    os.nice(GIVES_WAY)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(GIVES_WAY))
