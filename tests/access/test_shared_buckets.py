"""Offers are counted across processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rtc_server.access.shared_buckets import SIZE, SharedBuckets
from rtc_server.system.rate_limit import Buckets
from rtc_server.system.shared_file import SharedFile

KEY = b"k" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    SharedFile.create(tmp_path / "shared", SIZE).close()
    return tmp_path / "shared"


@pytest.fixture
def two(path: Path) -> Iterator[tuple[SharedBuckets, SharedBuckets]]:
    files = SharedFile(path), SharedFile(path)
    yield SharedBuckets(1.0, 4, files[0], KEY), SharedBuckets(1.0, 4, files[1], KEY)
    for file in files:
        file.close()


def test_two_processes_fill_one_bucket(two: tuple[SharedBuckets, SharedBuckets]) -> None:
    a, b = two
    assert [bucket.wait_s("x", 100.0) for bucket in (a, b, a, b, a, b)] == [0, 0, 0, 0, 1, 1]
    assert a.wait_s("y", 100.0) == 0, "another address has its own"
    assert b.wait_s("x", 100.5) == pytest.approx(0.5)
    assert b.wait_s("x", 101.0) == 0
    assert a.wait_s("x", 101.0) == 1


def test_it_counts_as_one_process_does(two: tuple[SharedBuckets, SharedBuckets]) -> None:
    alone = Buckets(1.0, 4, 100)
    for step in range(400):
        now, name = 1000 + step * 0.3, f"name {step * step % 7 % 3}"
        assert two[step % 2].wait_s(name, now) == pytest.approx(alone.wait_s(name, now))


def test_a_clock_that_goes_back_gives_nothing_away(
    two: tuple[SharedBuckets, SharedBuckets],
) -> None:
    a, b = two
    for _ in range(4):
        a.wait_s("x", 500.0)
    assert b.wait_s("x", 400.0) == 1


def test_many_names_push_out_the_oldest_and_no_other_limit_falls(two: tuple[SharedBuckets, SharedBuckets]) -> None:
    a, _ = two
    for number in range(20_000):
        assert a.wait_s(f"name {number}", number / 1000) == 0
    for _ in range(4):
        a.wait_s("flooder", 20.0)
    assert a.wait_s("flooder", 20.0) > 0


def test_a_process_that_is_killed_while_it_counts_leaves_the_lock(path: Path) -> None:
    holds = (
        "import sys, signal, pathlib; from rtc_server.system.shared_file import SharedFile\n"
        "with SharedFile(pathlib.Path(sys.argv[1])).locked():\n  print('held', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", holds, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    file = SharedFile(path)
    assert SharedBuckets(1.0, 4, file, KEY).wait_s("x", 1.0) == 0
    file.close()


def test_the_file_is_of_this_user_alone(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        SharedFile.create(path, SIZE)
