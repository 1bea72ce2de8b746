"""Networks of their own on this machine: namespaces, joined by cables, with no way from one to the next but a relay."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import need_commands

_COUNTER: Final = itertools.count()
_UP_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Namespace:
    """``address``: of its end of each cable, by the name of the other end's namespace."""

    name: str
    address: dict[str, str]

    @property
    def within(self) -> list[str]:
        """The command that runs another one in here."""
        return ["ip", "netns", "exec", self.name]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.within, *command], capture_output=True, text=True, check=False)

    def wrapper(self, directory: Path, program: str) -> str:
        """A program of one file that runs another one in here, for those who cannot be given a command."""
        path = directory / f"in-{self.name}"
        path.write_text(f'#!/bin/sh\nexec {" ".join(self.within)} {program} "$@"\n')
        path.chmod(0o755)
        return str(path)


@dataclass(frozen=True, slots=True)
class Chain:
    """Three networks: both outer ones reach the middle, which forwards nothing."""

    left: Namespace
    middle: Namespace
    right: Namespace


@contextlib.contextmanager
def chain_of_namespaces() -> Iterator[Chain]:
    """Skips the test, with the reason, where namespaces cannot be made."""
    need_commands("ip")
    number = next(_COUNTER)
    left, middle, right = (f"rtc-{os.getpid()}-{number}-{side}" for side in "lmr")
    made: list[str] = []
    try:
        for name in (left, middle, right):
            done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"network namespaces cannot be made here: {done.stderr.strip()}")
            made.append(name)
            # IPv6 would add addresses a second later, and browsers drop what they load when the network changes.
            _set(name, "ipv6/conf/default/disable_ipv6", "1")
            _set(name, "ipv4/ip_forward", "0")
            _ip("-n", name, "link", "set", "lo", "up")
        _cable(left, middle, "10.99.1")
        _cable(right, middle, "10.99.2")
        for name, device in ((left, "eth0"), (right, "eth0"), (middle, "to-l"), (middle, "to-r")):
            _wait_until_up(name, device)
        yield Chain(
            Namespace(left, {"middle": "10.99.1.2"}),
            Namespace(middle, {"left": "10.99.1.1", "right": "10.99.2.1"}),
            Namespace(right, {"middle": "10.99.2.2"}),
        )
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False)


def _cable(outer: str, middle: str, network: str) -> None:
    """``outer`` gets the second address of the network, ``middle`` the first; nobody gets a default route."""
    ends = {outer: "eth0", middle: f"to-{outer[-1]}"}
    _ip("link", "add", ends[outer], "netns", outer, "type", "veth", "peer", "name", ends[middle], "netns", middle)
    for name, last in ((outer, 2), (middle, 1)):
        _ip("-n", name, "addr", "add", f"{network}.{last}/24", "dev", ends[name])
        _ip("-n", name, "link", "set", ends[name], "up")


def _set(namespace: str, name: str, value: str) -> None:
    """A kernel parameter of this namespace; one that the kernel lacks is not missed."""
    path = f"/proc/sys/net/{name}"
    subprocess.run(
        ["ip", "netns", "exec", namespace, "sh", "-c", f"[ ! -e {path} ] || echo {value} > {path}"], check=True
    )


def _wait_until_up(namespace: str, device: str) -> None:
    deadline = time.monotonic() + _UP_TIMEOUT_S
    while True:
        command = ["ip", "-n", namespace, "-brief", "link", "show", device]
        state = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]
        if state == "UP":
            return
        assert time.monotonic() < deadline, f"{device} stays {state}"
        time.sleep(_POLL_S)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"networks cannot be joined here: ip {' '.join(arguments)}: {done.stderr.strip()}")
