"""How a run is shared out among workers, with workers that behave as those of pytest-xdist do."""

from __future__ import annotations

import ast
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import shares
from tests.support.shares import ALONE, COMPUTE, GIVES_WAY, HOLDS, LONG, WAIT, Shares, may_run_beside

_INSTRUMENTS = ("lab.sound.card", "lab.sound.likeness")
SOLO = sorted(ALONE)[:2]
HOLDING = next(file for file in HOLDS if file.startswith("tests/integration/test_"))
TESTS = [
    *(f"tests/usage/test_a.py::test_{n}" for n in range(7)),
    *(f"{SOLO[0]}::test_{n}" for n in range(4)),
    *(f"tests/training/test_long.py::test_{n}" for n in range(9)),
    f"{SOLO[1]}::test_only",
    "tests/models/test_single.py::test_only",
    *(f"{HOLDING}::test_{n}" for n in range(5)),
    "tests/browser/test_last.py::test_only",
    *(f"tests/test_{n}.py::test_only" for n in range(6)),
]


def file_of(test: str) -> str:
    return test.split("::", maxsplit=1)[0]


class Worker:
    """Begins a test when it knows the next one, or that there is none."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.queue: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, indices: list[int]) -> None:
        assert not self.shutting_down
        self.queue += indices

    def shutdown(self) -> None:
        self.shutting_down = True

    @property
    def running(self) -> int | None:
        return self.queue[0] if len(self.queue) > 1 or (self.queue and self.shutting_down) else None


class Run:
    def __init__(self, tests: list[str], workers: int) -> None:
        option = SimpleNamespace(loadscopereorder=True)
        config: Any = SimpleNamespace(getvalue=lambda _: ["popen"] * workers, option=option)
        self.tests = tests
        self.shares = Shares(config)
        self.done: list[tuple[str, str]] = []
        self.workers: list[Worker] = []
        for number in range(workers):
            self.join(Worker(f"gw{number}"))
        self.shares.schedule()
        self.look()

    def join(self, worker: Any) -> None:
        self.workers.append(worker)
        self.shares.add_node(worker)
        self.shares.add_node_collection(worker, self.tests)

    def leave(self, worker: Any) -> None:
        """It crashes, and another one takes its place."""
        self.workers.remove(worker)
        crashed = self.shares.remove_node(worker)
        assert crashed is not None
        self.done.append((crashed, "crashed"))
        self.join(Worker(f"{worker.gateway.id}-again"))
        self.shares.schedule()
        self.look()

    def look(self) -> None:
        """As pytest-xdist does after each event."""
        if self.shares.tests_finished:
            for worker in self.workers:
                worker.shutdown()

    @property
    def busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.running is not None]

    def step(self, dice: random.Random) -> None:
        """One of the running tests is over."""
        worker: Any = dice.choice(self.busy)
        index = worker.queue.pop(0)
        self.done.append((self.tests[index], worker.gateway.id))
        self.shares.mark_test_complete(worker, index)
        self.look()


def test_what_hears_as_sound_comes_runs_alone() -> None:
    """A file that uses an instrument of sound in time, without the mark, would be disturbed without a word."""
    root = Path(__file__).parents[1]
    marked = {path.relative_to(root).as_posix() for path in (root / "tests").glob("*/test_*.py") if _hears(path)}
    assert marked
    assert marked <= ALONE


def test_the_mark_is_one_of_the_file() -> None:
    """Not of some text in it, which is JavaScript, for example."""
    root = Path(__file__).parents[1]
    for file in ALONE:
        names = [
            target.id
            for node in ast.parse((root / file).read_text()).body
            if isinstance(node, ast.Assign) and "pytest.mark.alone" in ast.unparse(node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        ]
        assert names == ["pytestmark"], file


def _hears(path: Path) -> bool:
    """Whether it imports a sound card, or what compares what was heard with what was said."""
    lines = path.read_text().splitlines()
    return any(line.startswith(f"from {module} import ") for line in lines for module in _INSTRUMENTS)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("tests", [TESTS, [test for test in TESTS if file_of(test) not in ALONE]], ids=["all", "none"])
def test_everything_runs_once_and_what_hears_a_file_at_a_time(tests: list[str], workers: int, seed: int) -> None:
    run, dice = Run(tests, workers), random.Random(seed)
    gave_way: set[str] = set()
    while run.busy:
        running = {
            worker.gateway.id: file_of(tests[worker.running]) for worker in run.busy if worker.running is not None
        }
        hears = ALONE & set(running.values())
        assert len(hears) <= 1, running
        assert not hears or all(map(may_run_beside, set(running.values()) - hears)), running
        gave_way |= {worker for worker, file in running.items() if file not in ALONE}
        assert not any(running.get(worker) in ALONE for worker in gave_way), "it is a nice one by now"
        run.step(dice)
    assert sorted(test for test, _ in run.done) == sorted(tests)
    where = {(file_of(test), worker) for test, worker in run.done}
    assert len(where) == len({file_of(test) for test in tests}), "a file is in one worker"
    assert len({worker for _, worker in where}) == workers


@pytest.mark.parametrize("beside", [True, False])
def test_what_holds_runs_beside_what_hears_when_nothing_is_left_that_computes(
    monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    """Unless that is turned off; and what does neither waits for it."""
    monkeypatch.setattr(shares, "HOLDS_BESIDE", beside)
    hears = [f"{SOLO[0]}::test_{n}" for n in range(40)]
    others = ["tests/usage/test_a.py::test_a", f"{HOLDING}::test_b", "tests/models/test_c.py::test_c"]
    run = Run([*others, *hears], 2)
    first, second = run.workers
    begun = [file_of(run.tests[index]) for index in second.queue]
    assert begun == ["tests/models/test_c.py", *([HOLDING] if beside else [])]
    assert {file_of(run.tests[index]) for index in first.queue} == {SOLO[0]}
    assert list(run.shares.workqueue) == ["tests/usage/test_a.py", *([] if beside else [HOLDING])]


@pytest.mark.parametrize("workers", [2, 3])
def test_what_hears_is_not_begun_twice_where_there_is_nothing_else(workers: int) -> None:
    tests = [test for test in TESTS if file_of(test) in ALONE]
    run, dice = Run(tests, workers), random.Random(0)
    while run.busy:
        assert len(run.busy) == 1
        run.step(dice)
    assert sorted(test for test, _ in run.done) == sorted(tests)


def test_what_computes_comes_before_what_waits() -> None:
    run, dice = Run(TESTS, 1), random.Random(0)
    while run.busy:
        run.step(dice)
    order = list(dict.fromkeys(file_of(test) for test, _ in run.done))
    assert set(order[:2]) == set(SOLO)
    assert order[2:4] == ["tests/training/test_long.py", "tests/models/test_single.py"]
    assert order[-2:] == ["tests/browser/test_last.py", HOLDING]


def test_what_takes_long_is_there_and_comes_first_of_its_room() -> None:
    """A file that was renamed would come at the end, where the other workers wait for it, without a word."""
    root = Path(__file__).parents[1]
    assert all((root / file).is_file() for file in LONG)
    rooms = {*COMPUTE, *WAIT}
    assert all((root / "tests" / room).exists() for room in rooms)
    assert all((root / beginning).exists() for beginning in HOLDS)
    assert not [file for file in ALONE if may_run_beside(file)]
    long = LONG[1]
    short = [f"{Path(long).parent.as_posix()}/test_short.py::test_{n}" for n in range(9)]
    run, dice = Run([*short, f"{long}::test_only"], 1), random.Random(0)
    while run.busy:
        run.step(dice)
    assert file_of(run.done[0][0]) == long


def test_a_worker_gives_way_from_its_first_test_on_that_hears_nothing() -> None:
    """In a process of its own: niceness does not come back."""
    begun = [f"{SOLO[0]}::test_x", "tests/test_x.py::test_x", "tests/test_y.py::test_y"]
    program = (
        "import os; from tests.support.shares import pytest_runtest_logstart as begins\n"
        f"for test in {begun!r}: begins(test); print(os.nice(0), os.getsid(0) == os.getpid())"
    )
    worker = {**os.environ, "PYTEST_XDIST_WORKER": "gw0"}
    done = subprocess.run([sys.executable, "-c", program], env=worker, capture_output=True, text=True, check=True)
    before, after = os.nice(0), min(19, os.nice(0) + GIVES_WAY)
    assert done.stdout.splitlines() == [f"{before} False", f"{after} True", f"{after} True"]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("after", range(len(TESTS) - 2))
def test_nothing_is_lost_with_a_worker_that_crashes(after: int, workers: int, seed: int) -> None:
    run, dice = Run(TESTS, workers), random.Random(seed)
    for _ in range(after):
        run.step(dice)
    run.leave(run.busy[0])
    while run.busy:
        run.step(dice)
    run_again = [test for test, worker in run.done if worker != "crashed"]
    assert sorted(run_again) == sorted(TESTS), "that which it crashed in is run again"
