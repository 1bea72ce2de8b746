"""Programs are run within limits of time and output, and take what they have started along."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from lab.waiting import until
from rtc_server.translation.programs import ProgramError, run


def has_ended(pid: int) -> bool:
    """Where no init process reaps orphans, one that has ended stays on as a zombie."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_text_goes_in_and_bytes_come_out() -> None:
    assert run(["cat"], "-v ä\n$(id)") == "-v ä\n$(id)".encode()


def test_lone_surrogates_do_not_stop_a_text() -> None:
    assert run(["cat"], "a\ud800b") == b"a?b"


def test_one_that_does_not_read_is_no_trouble() -> None:
    assert run(["echo", "hello"], "x" * 60_000) == b"hello\n"


def test_one_that_writes_without_end_is_cut_off() -> None:
    assert run(["yes"], most_bytes=1000) == b"y\n" * 500


class Late(threading.Thread):
    """In place of a timer: it rings when the program has begun to hang, however long it took to, and has said into a
    named pipe who it is."""

    pids: Path
    said = ""

    def __init__(self, interval_s: float, ring: Callable[..., None], arguments: tuple[object, ...]) -> None:
        super().__init__()
        assert interval_s == 2.0
        self._ring = partial(ring, *arguments)

    def run(self) -> None:
        Late.said = self.pids.read_text()  # until the program has closed it
        self._ring()

    def cancel(self) -> None:
        self.join()


async def test_one_that_hangs_is_killed_with_what_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    monkeypatch.setattr(Late, "pids", pids, raising=False)
    monkeypatch.setattr("rtc_server.translation.programs.threading.Timer", Late)
    with pytest.raises(ProgramError, match="sh ended with status -9"):
        run(["sh", "-c", f"sleep 1000 & echo $! $$ > {pids}; cat > /dev/null; wait"], limit_s=2.0)
    assert len(Late.said.split()) == 2
    for pid in map(int, Late.said.split()):
        await until(partial(has_ended, pid))


@pytest.mark.parametrize("command", [["no-such-program"], ["false"], ["sh", "-c", "kill -9 $$"]])
def test_one_that_cannot_do_it_is_an_error(command: list[str]) -> None:
    with pytest.raises(ProgramError):
        run(command, "x")


def test_no_descriptor_is_left() -> None:
    gc.collect()  # what tests before left to it would be closed meanwhile
    before = psutil.Process().num_fds()
    for _ in range(3):
        run(["cat"], "x")
        with pytest.raises(ProgramError):
            run(["false"], "x")
    assert psutil.Process().num_fds() <= before
