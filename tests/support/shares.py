"""How a run with several workers (``pytest -n 2 --dist loadfile``) is shared out: what has to have the machine to
itself comes first, then the rooms that take longest, one file after the other to the worker that is free.

Knows files, not tests: the tests of a file run in one worker, in their order.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from xdist.scheduler.loadfile import LoadFileScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

_ROOT: Final = Path(__file__).parents[2]
_MARK: Final = "pytest.mark.alone"
ALONE: Final = frozenset(
    path.relative_to(_ROOT).as_posix() for path in (_ROOT / "tests").glob("*/test_*.py") if _MARK in path.read_text()
)
"""Files that measure sound as it comes, or speak with a model that answers as it hears: work beside them would change
what they hear, and they say so by a mark. All else holds on a machine that has other work."""
LONGEST_FIRST: Final = ("browser", "integration", "foreign", "training", "models", "lab", "bench")
"""Rooms that are not to be begun when the others are done."""

_NEEDED: Final = 2


class Shares(LoadFileScheduling):
    """While files of :data:`ALONE` are left, one worker runs them and the others wait."""

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        waited = self._is_alone
        super().mark_test_complete(node, item_index, duration)
        if waited and not self._is_alone:
            for other in self.nodes:
                self._reschedule(other)

    def _reschedule(self, node: WorkerController) -> None:
        super()._reschedule(node)
        # A worker begins a test when it knows the next one.
        if self.workqueue and self._may_have_more(node) and self._pending_of(self.assigned_work[node]) < _NEEDED:
            self._reschedule(node)

    def _assign_work_unit(self, node: WorkerController) -> None:
        if self._may_have_more(node):
            self.workqueue.move_to_end(min(self.workqueue, key=_turn), last=False)
            super()._assign_work_unit(node)

    def _may_have_more(self, node: WorkerController) -> bool:
        willing = [each for each in self.nodes if not each.shutting_down]
        return node in (willing[:1] if self._is_alone else willing)

    @property
    def _is_alone(self) -> bool:
        left = [self.workqueue, *self.assigned_work.values()]
        return any(not all(files.get(file, {}).values()) for files in left for file in ALONE)


def _turn(file: str) -> int:
    if file in ALONE:
        return -1
    room = file.removeprefix("tests/").partition("/")[0]
    return LONGEST_FIRST.index(room) if room in LONGEST_FIRST else len(LONGEST_FIRST)


# What pytest-xdist calls, where it is asked for: tests/conftest.py takes it in.


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Shares | None:
    return Shares(config, log) if config.getvalue("dist") == "loadfile" else None
