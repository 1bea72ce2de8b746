"""The decoding process, run by :mod:`rtc_server.decoding.__main__`: forks a child for each file.

It imports what decoding needs, once, and reads no file itself. A fork costs milliseconds, has no thread and nothing of
another file in it, and gives up all that it does not need before it looks at its own: memory, time, descriptors. When
the server goes, the nursery does, and with it every fork.
"""

from __future__ import annotations

import ctypes
import gc
import io
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from rtc_server.audio import MODEL_RATE_HZ
from rtc_server.decoding.container import limit_ffmpeg
from rtc_server.decoding.findings import Refusal, Refused
from rtc_server.decoding.media_file import MAX_DURATION_S, MediaFile
from rtc_server.decoding.source import Descriptor
from rtc_server.decoding.wire import EXIT, FRAME_HEADER, NOT_STARTED, ORDER, Frame, Limits, Order

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_SOURCE, _OUT = 3, 4
"""The descriptors of a fork, behind the three that every process has."""
_MAX_DESCRIPTORS: Final = 256
"""Of the nursery: it has no more than the forks that are being made."""
_SILENT_WAV: Final = (
    b"RIFF\x24\x01\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\xc0\x5d\0\0\x80\xbb\0\0\x02\0\x10\0data\0\x01\0\0" + bytes(256)
)


class Nursery:
    """Takes orders from ``control`` until that ends."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._jobs: dict[int, int] = {}
        self._libc = ctypes.CDLL(None)
        self._pid = os.getpid()

    def run(self) -> None:
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wake, select.POLLIN)
        try:
            while True:
                ready = dict(poll.poll())
                if wake in ready:
                    os.read(wake, 4096)
                    self._reap()
                if self._control.fileno() in ready and not self._take_order():
                    return
        finally:
            for pid in self._jobs:
                os.kill(pid, signal.SIGKILL)

    def _take_order(self) -> bool:
        """False when the server has gone."""
        data, descriptors, _, _ = socket.recv_fds(self._control, ORDER.size, 2)
        if len(data) < ORDER.size:
            return False
        kind, job, memory_mib, cpu_s, cpu_share = ORDER.unpack(data)
        if kind == Order.KILL:
            for pid in [pid for pid, of in self._jobs.items() if of == job]:
                os.kill(pid, signal.SIGKILL)
            return True
        try:
            self._start(job, descriptors, Limits(memory_mib, cpu_s, cpu_share))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _start(self, job: int, descriptors: list[int], limits: Limits) -> None:
        try:
            pid = os.fork()
        except OSError:
            self._control.sendall(EXIT.pack(job, NOT_STARTED))
            return
        if pid:
            self._jobs[pid] = job
            return
        try:
            source, out = descriptors
            self._become_child(source, out)
            _confine(limits, self._libc)
            _decode(limits)
        except BaseException:  # whatever it is, the fork must not go on as a nursery
            os._exit(1)
        os._exit(0)

    def _become_child(self, source: int, out: int) -> None:
        """Nothing of the nursery's, and gone when it is."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # without a reader it is over
        _die_with_parent(self._libc, self._pid)
        out = os.dup(out) if out == _SOURCE else out
        os.dup2(source, _SOURCE)
        os.dup2(out, _OUT)
        os.dup2(1, 2)  # complaints of libraries about a file have no reader
        os.closerange(_OUT + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    def _reap(self) -> None:
        while self._jobs:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            job = self._jobs.pop(pid, None)
            if job is not None:
                self._control.sendall(EXIT.pack(job, os.waitstatus_to_exitcode(status)))


def _die_with_parent(libc: Any, parent: int) -> None:
    if sys.platform == "linux":
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _confine(limits: Limits, libc: Any) -> None:
    """No memory, time, file, socket or process beyond what decoding one file takes."""
    if sys.platform == "linux":
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + limits.memory_mib * 2**20)
    _limit(resource.RLIMIT_CPU, int(limits.cpu_s + limits.cpu_share * MAX_DURATION_S) + 1)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_NOFILE, _OUT + 1)


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    least = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (least, least))


def _decode(limits: Limits) -> None:
    """The file at :data:`_SOURCE` into the pipe at :data:`_OUT`."""
    try:
        budget = _Budget(limits)
        file = MediaFile(Descriptor(_SOURCE))
        _send_json(Frame.OPENED, {"duration_s": file.duration_s})
        for block in file.blocks():
            budget.extend(block.size / MODEL_RATE_HZ)
            _send(Frame.PCM, block.astype(np.float32, copy=False).tobytes())
            budget.wind()
        _send_json(Frame.ENDED, {"notices": sorted(file.notices)})
    except Refused as refused:
        _send_json(Frame.REFUSED, {"refusal": refused.refusal})
    except MemoryError:
        _send_json(Frame.REFUSED, {"refusal": Refusal.MEMORY})


class _Budget:
    """CPU time: a timer ends the process when it is used up, in whatever code it is."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._audio_s = 0.0
        self.wind()

    def extend(self, audio_s: float) -> None:
        self._audio_s += audio_s

    def wind(self) -> None:
        limits = self._limits
        left_s = limits.cpu_s + limits.cpu_share * self._audio_s - time.process_time()
        if left_s <= 0:  # the timer counts in ticks: wound often enough, it would never ring
            raise Refused(Refusal.STALLED)
        signal.setitimer(signal.ITIMER_PROF, min(limits.cpu_s, left_s))


def _send_json(kind: Frame, body: dict[str, Any]) -> None:
    _send(kind, json.dumps(body).encode())


def _send(kind: Frame, body: bytes) -> None:
    data = memoryview(FRAME_HEADER.pack(kind, len(body)) + body)
    while data:
        data = data[os.write(_OUT, data) :]


def run(control: socket.socket) -> None:
    """Until the server has gone. What is imported or looked up late is there before the first fork."""
    _limit(resource.RLIMIT_NOFILE, _MAX_DESCRIPTORS)
    limit_ffmpeg()
    list(MediaFile(io.BytesIO(_SILENT_WAV)).blocks())
    gc.collect()
    gc.freeze()
    control.sendall(EXIT.pack(0, 0))
    Nursery(control).run()
