"""Runs a program that reads text and writes some bytes, within limits. No shell has a part in it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from typing import Final

LIMIT_S: Final = 30.0
"""By the clock, and as long as the longest that a caller waits for an utterance: it is there for a program that hangs.
One that has its fraction of a second of work to do must not be killed because a busy machine gives it no time: what it
says too late is the caller's to refuse, and a voice or a pair of languages that is not found at the start is missed for
good."""
_PIPE_BYTES: Final = 65_536
"""What a pipe takes without a reader; what is written here is less."""


class ProgramError(Exception):
    """The program is missing, failed, or did not end in time."""


def run(command: Sequence[str], text: str = "", most_bytes: int = 1 << 20, limit_s: float = LIMIT_S) -> bytes:
    """What ``command`` writes when it reads ``text``, at most ``most_bytes``. Raises ProgramError.

    It is in a session of its own, so that what it starts is killed with it, and hears no signal of the terminal.
    """
    raw = text.encode("utf-8", "replace")
    assert len(raw) < _PIPE_BYTES, "a text is bounded"
    try:
        process = subprocess.Popen(  # noqa: S603 - a program of the system's, with arguments of ours
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise ProgramError(f"{command[0]} cannot be run") from error
    timer = threading.Timer(limit_s, _kill, (process,))
    timer.daemon = True
    timer.start()
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdout:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(raw)
            out = process.stdout.read(most_bytes)
        if len(out) == most_bytes:
            _kill(process)  # it has more to say than is wanted
            process.wait()
        elif process.wait() != 0:
            raise ProgramError(f"{command[0]} ended with status {process.returncode}")
    finally:
        timer.cancel()
    return out


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started: it leads their group until it has been waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
