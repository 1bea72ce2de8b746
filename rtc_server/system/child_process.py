"""Child processes that only their parent ends: they outlive signals to the group, but never the parent.

A Ctrl-C, a closed terminal and a service manager send their signal to every process at once. What it means is the main
process's to decide: it may have conversations to end first, in which its children are needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NoReturn

_GROUP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG: Final = 1


class ChildProcess:
    """``python -m module``, started from the event loop's thread. It has to call :func:`answer_to_parent_alone` first,
    and to end when its standard input does, or another descriptor that it shares with this process.

    ``arguments``: of the module. ``pass_fds``: descriptors that it shares, by the same numbers. ``environment``: in
    place of this process's. ``safe_path``: modules are not looked for in the working directory. ``quiet``: what it
    prints to its standard output is dropped.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        pass_fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        safe_path: bool = False,
        quiet: bool = False,
    ) -> None:
        """Raises OSError if there is no room for a process."""
        command = [sys.executable, *(["-P"] if safe_path else []), "-m", module, *arguments]
        with _blocked(_GROUP_SIGNALS):  # the child begins with them blocked: there is no moment in which one ends it
            self._process = subprocess.Popen(  # noqa: S603 - a module of ours
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL if quiet else None,
                pass_fds=pass_fds,
                env=environment,
            )
        loop = asyncio.get_running_loop()
        self._status: asyncio.Future[int] = loop.create_future()
        self._watcher = threading.Thread(target=self._watch, args=(loop,), name="child-watch", daemon=True)
        self._watcher.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._status.done()

    def tell(self, line: bytes) -> None:
        """Write a line that a pipe holds (64 KiB). One that has ended meanwhile does not hear it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def kill(self) -> None:
        """End it by force. One that has ended is left alone."""
        self._process.kill()

    async def wait(self) -> int:
        """Its exit status; that of a signal is negative. Safe to cancel."""
        return await asyncio.shield(self._status)

    async def end(self, grace_s: float) -> bool:
        """Close its standard input, which asks it to end, and wait until it has; by force after ``grace_s``, and then
        the answer is False. Safe to call again."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            async with asyncio.timeout(grace_s):
                await self.wait()
        except TimeoutError:
            self._process.kill()
            await self.wait()
            return False
        finally:
            if self.ended:
                self._watcher.join()  # has told us, and ends
        return True

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        status = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: no task waits any more
            loop.call_soon_threadsafe(self._settle, status)

    def _settle(self, status: int) -> None:
        if not self._status.done():
            self._status.set_result(status)


@contextlib.contextmanager
def _blocked(signals: tuple[signal.Signals, ...]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def read_first_line() -> bytes:
    """What the parent says first, to its end; empty if it is gone before that. Unbuffered: what comes behind it, and
    the end of the pipe, are for those who wait for its descriptor."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            return b""
        line += byte
    return line


def answer_to_parent_alone() -> None:
    """To be called first in a child process."""
    for number in _GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
    end_with_parent()


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent is killed, whatever it does just then. The end of its standard
    input, which tells the same, is read by a process that is idle, not by one that loads a model or hangs."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def leave(status: int) -> NoReturn:
    """End this process at once, with ``status``. A thread that still computes, in code that no exception reaches, is
    not waited for, and libraries have no last word: Triton's would write a page of what it has not freed."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
