"""How much memory is free, where a container or a service may take less than the machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtc_server.system.memory import free_bytes, size_text

GIB = 2**30


def machine(root: Path, free_gib: float, group: str = "0::/") -> Path:
    """The files of a machine with so much memory."""
    write(root, "proc/meminfo", f"MemTotal: 999999999 kB\nMemAvailable:   {round(free_gib * GIB / 1024)} kB\n")
    write(root, "proc/self/cgroup", f"3:cpuset:/elsewhere\n{group}\n")
    return root


def write(root: Path, name: str, text: object) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(str(text))


def test_without_limits_the_machine_counts(tmp_path: Path) -> None:
    assert free_bytes(machine(tmp_path, 23)) == 23 * GIB


def test_where_nothing_is_known_nothing_is_said(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) is None


def test_this_machine_is_known() -> None:
    assert 0 < (free_bytes() or 0) < 2**60


@pytest.mark.parametrize(
    ("group", "directory", "limit", "used"),
    [
        ("0::/", "sys/fs/cgroup", "memory.max", "memory.current"),
        (
            "0::/system.slice/rtc-server.service",
            "sys/fs/cgroup/system.slice/rtc-server.service",
            "memory.max",
            "memory.current",
        ),
        ("4:cpu,memory:/docker/x", "sys/fs/cgroup/memory/docker/x", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ],
    ids=["container", "service", "old container"],
)
def test_a_limit_counts(tmp_path: Path, group: str, directory: str, limit: str, used: str) -> None:
    """Files that the group has read are not in the way."""
    machine(tmp_path, 23, group)
    write(tmp_path, f"{directory}/{limit}", 4 * GIB)
    write(tmp_path, f"{directory}/{used}", 3 * GIB)
    assert free_bytes(tmp_path) == GIB
    prefix = "total_" if "_in_" in limit else ""
    write(tmp_path, f"{directory}/memory.stat", f"anon {GIB}\n{prefix}inactive_file {GIB}\n{prefix}active_file {GIB}\n")
    assert free_bytes(tmp_path) == 3 * GIB


def test_the_tightest_of_the_groups_around_counts(tmp_path: Path) -> None:
    machine(tmp_path, 23, "0::/a/b")
    for directory, limit in (("a/b", "max"), ("a", 2 * GIB), ("", 8 * GIB)):
        write(tmp_path, f"sys/fs/cgroup/{directory}/memory.max", limit)
        write(tmp_path, f"sys/fs/cgroup/{directory}/memory.current", GIB)
    assert free_bytes(tmp_path) == GIB


def test_a_group_that_holds_more_than_it_may_has_no_room(tmp_path: Path) -> None:
    machine(tmp_path, 23)
    write(tmp_path, "sys/fs/cgroup/memory.max", GIB)
    write(tmp_path, "sys/fs/cgroup/memory.current", 2 * GIB)
    assert free_bytes(tmp_path) == 0


def test_sizes_are_read_by_people() -> None:
    assert size_text(28 * GIB) == "28.0 GiB"
    assert size_text(1516 * 2**20) == "1,516.0 MiB"
