"""File descriptors: the limit is raised, they are counted now and then, and each purpose has its share."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys

import pytest

from rtc_server.system.descriptors import Descriptors, is_shortage

RAISED = """
import resource, sys
from rtc_server.system import descriptors
before = tuple(map(int, sys.argv[1:]))
resource.setrlimit(resource.RLIMIT_NOFILE, before)
print(descriptors.raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE), descriptors.limit())
"""


class Machine:
    """Files and a clock that the test moves."""

    def __init__(self) -> None:
        self.open, self.now, self.looks = 10, 0.0, 0

    def count(self) -> int:
        self.looks += 1
        if self.open < 0:
            raise OSError(-self.open, "no")
        return self.open

    def clock(self) -> float:
        return self.now


def descriptors(machine: Machine, most: int = 1000) -> Descriptors:
    return Descriptors(most, machine.count, machine.clock)


@pytest.mark.parametrize(("soft", "hard", "after"), [(64, 512, 512), (256, 256, 256), (512, 100_000, 65_536)])
def test_the_soft_limit_is_raised_to_the_hard_one(soft: int, hard: int, after: int) -> None:
    highest = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if highest not in (-1, resource.RLIM_INFINITY) and highest < hard:
        hard, after = highest, min(highest, 65_536)
    command = [sys.executable, "-c", RAISED, str(soft), str(hard)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(after), str(after), str(hard), str(after)]


def test_they_are_counted_now_and_then_and_what_is_taken_in_between_is_known() -> None:
    machine = Machine()
    files = descriptors(machine)
    assert [files.left() for _ in range(5)] == [990] * 5
    assert machine.looks == 1
    files.take()
    files.take(9)
    assert files.left() == 980
    machine.now += 0.2
    assert (files.left(), machine.looks) == (990, 2)
    files.take(5000)
    assert files.left() == 0


def test_none_to_count_them_with_is_none_left() -> None:
    machine = Machine()
    for code in (errno.EMFILE, errno.ENFILE):
        machine.open, machine.now = -code, machine.now + 1
        assert descriptors(machine).left() == 0
    machine.open = -errno.ENOENT  # a system without the directory
    assert descriptors(machine).left() == 1000


@pytest.mark.parametrize(
    ("most", "used", "connections", "http", "media", "answer"),
    [
        (64, 50, 0, True, True, True),
        (64, 53, 3, False, True, True),
        (64, 34, 20, True, True, True),
        (64, 35, 21, False, True, True),
        (64, 58, 3, False, True, True),
        (64, 59, 3, False, False, True),
        (64, 62, 3, False, False, False),
        (1024, 759, 512, True, True, True),
        (1024, 760, 512, False, True, True),
        (100_000, 99_735, 4000, True, True, True),
        (100_000, 99_736, 4000, False, True, True),
    ],
)
def test_each_purpose_has_its_share(
    most: int, used: int, connections: int, http: bool, media: bool, answer: bool
) -> None:
    machine = Machine()
    machine.open = used
    files = descriptors(machine, most)
    assert files.suffice_for_http(connections) is http
    assert files.suffice_for_media(2) is media
    assert files.suffice_for_an_answer is answer


def test_those_of_this_process() -> None:
    files = Descriptors()
    assert 0 < files.left() < files.most == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_what_says_that_there_are_none() -> None:
    assert is_shortage(OSError(errno.EMFILE, "x"))
    assert not is_shortage(OSError(errno.ENOENT, "x"))
    assert not is_shortage(ValueError())
    assert not is_shortage(None)
