"""The server's side of decoding: keeps the nursery alive, passes files to it, and reads decoded audio on demand.

What comes from there is a stranger's as the file is: lengths, codes and samples are looked at before they are used.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import signal
import socket
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import numpy as np

from rtc_server.audio import FloatArray
from rtc_server.decoding.findings import REFUSALS, Notice, Refusal
from rtc_server.decoding.wire import (
    EXIT,
    FRAME_HEADER,
    MAX_FRAME_BYTES,
    NOT_STARTED,
    ORDER,
    Frame,
    Limits,
    Order,
)
from rtc_server.errors import FileUnreadable, NotAudio, Overloaded, ServerError, TooLarge
from rtc_server.system.child_process import ChildProcess
from rtc_server.system.tasks import to_the_end

logger = logging.getLogger(__name__)

_START_S: Final = 60.0
_EXIT_S: Final = 10.0
_BUFFER_BYTES: Final = 64 * 1024
_FAULTS: Final = frozenset({Refusal.MEMORY, Refusal.STALLED, Refusal.CRASHED})
_OUT_OF_TIME: Final = frozenset({-signal.SIGPROF, -signal.SIGXCPU})
_MAX_FILES: Final = 2**32


class Decoders:
    """The nursery of one server. It is started when it is first needed, and again after it was lost."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._nursery: _Nursery | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    async def warm(self) -> None:
        """Start it before it is needed. Raises Overloaded."""
        await self._running()

    async def close(self) -> None:
        """End it, and every file that it reads."""
        self._closed = True
        async with self._starting:
            if self._nursery is not None:
                await self._nursery.close()

    async def start(self, source: IO[bytes]) -> Job:
        """Begin to decode a file. Raises Overloaded."""
        return (await self._running()).start(source, self.limits)

    async def _running(self) -> _Nursery:
        async with self._starting:
            if self._closed:
                raise _no_process()
            if self._nursery is None or self._nursery.lost:
                if self._nursery is not None:
                    await self._nursery.close()
                self._nursery = _Nursery()
                await self._nursery.begin()
            return self._nursery


def _no_process() -> Overloaded:
    return Overloaded("The server cannot decode a file at the moment. Try again in a few seconds.")


class _Nursery:
    """One process, and what it is doing."""

    def __init__(self) -> None:
        self.lost = False
        self._jobs: dict[int, asyncio.Future[int]] = {}
        self._next = 1
        self._control, self._theirs = socket.socketpair()
        self._control.setblocking(False)
        self._received = bytearray()
        self._process: ChildProcess | None = None

    async def begin(self) -> None:
        """Raises Overloaded."""
        loop = asyncio.get_running_loop()
        ready = self._jobs[0] = loop.create_future()
        try:
            theirs = self._theirs.fileno()
            self._process = ChildProcess(
                *("rtc_server.decoding", str(theirs)),
                pass_fds=[theirs],
                environment=_environment(),
                safe_path=True,
                quiet=True,
            )
            self._theirs.close()
            loop.add_reader(self._control, self._on_readable)
            async with asyncio.timeout(_START_S):
                status = await ready
        except (OSError, TimeoutError) as error:
            logger.error("no process to decode files: %s", error or "it does not start")
            status = NOT_STARTED
        except BaseException:
            await self.close()
            raise
        if status != 0:
            await self.close()
            raise _no_process()

    def start(self, source: IO[bytes], limits: Limits) -> Job:
        """Raises Overloaded."""
        ours, theirs = os.pipe()
        if source.writable():
            source.flush()
        try:
            number, self._next = self._next, self._next % (_MAX_FILES - 1) + 1
            order = ORDER.pack(Order.START, number, limits.memory_mib, limits.cpu_s, limits.cpu_share)
            socket.send_fds(self._control, [order], [source.fileno(), theirs])
        except OSError:
            os.close(ours)
            raise _no_process() from None
        finally:
            os.close(theirs)
        self._jobs[number] = exited = asyncio.get_running_loop().create_future()
        return Job(self, number, ours, exited)

    def kill(self, job: int) -> None:
        if job in self._jobs and not self.lost:
            try:
                self._control.send(ORDER.pack(Order.KILL, job, 0, 0, 0))
            except OSError:  # it does not listen any more: nothing of it may stay
                self._lose()

    async def close(self) -> None:
        self._lose()
        self._theirs.close()
        if self._process is not None:
            await self._process.end(_EXIT_S)  # killed already, and its forks with it
            self._process = None

    def _on_readable(self) -> None:
        try:
            data = self._control.recv(64 * EXIT.size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        self._received += data
        while len(self._received) >= EXIT.size:
            job, status = EXIT.unpack(self._received[: EXIT.size])
            del self._received[: EXIT.size]
            exited = self._jobs.pop(job, None)
            if exited is not None and not exited.done():
                exited.set_result(status)

    def _lose(self) -> None:
        if self.lost:
            return
        self.lost = True
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        jobs, self._jobs = self._jobs, {}
        for exited in jobs.values():
            if not exited.done():
                exited.set_result(NOT_STARTED)
        if self._process is not None:
            self._process.kill()


def _environment() -> dict[str, str]:
    """Variables that Python needs to find the package and its libraries; no secrets, and no more threads than one."""
    root = str(Path(__file__).parent.parent.parent)
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL") if name in os.environ}
    return kept | {"PYTHONPATH": search, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class Job:
    """One file that is being decoded: a pipe to read from, and an end."""

    def __init__(self, nursery: _Nursery, number: int, pipe: int, exited: asyncio.Future[int]) -> None:
        self._nursery = nursery
        self._number = number
        self._pipe = pipe
        self._exited = exited
        self._reader = asyncio.StreamReader(limit=_BUFFER_BYTES)
        self._transport: asyncio.ReadTransport | None = None

    async def connect(self) -> None:
        file = os.fdopen(self._pipe, "rb", buffering=0)
        try:
            protocol = asyncio.StreamReaderProtocol(self._reader)
            self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, file)
        except BaseException:
            file.close()
            raise

    async def frame(self, stall_s: float) -> tuple[Frame, bytes]:
        """The next message. Raises FileUnreadable or Overloaded if there is none."""
        try:
            async with asyncio.timeout(stall_s):
                kind, size = FRAME_HEADER.unpack(await self._reader.readexactly(FRAME_HEADER.size))
                if size > MAX_FRAME_BYTES:
                    raise _refused(Refusal.CRASHED)
                return Frame(kind), await self._reader.readexactly(size)
        except TimeoutError:
            raise _refused(Refusal.STALLED) from None
        except ValueError:
            raise _refused(Refusal.CRASHED) from None
        except asyncio.IncompleteReadError:
            raise await self._why_it_ended() from None

    async def _why_it_ended(self) -> ServerError:
        try:
            async with asyncio.timeout(_EXIT_S):
                status = await asyncio.shield(self._exited)
        except TimeoutError:
            status = 0
        if status == NOT_STARTED:
            return _no_process()
        if status in _OUT_OF_TIME:
            return _refused(Refusal.STALLED)
        logger.warning("the decoder of a file ended with status %d", status)
        return _refused(Refusal.CRASHED)

    async def end(self) -> None:
        """Returns when the file is not read any more."""
        if self._transport is not None:
            self._transport.close()
        self._nursery.kill(self._number)
        await asyncio.wait([self._exited], timeout=_EXIT_S)


class MediaReader:
    """A file's audio: use it as an asynchronous context manager, and iterate over it once.

    ``source``: a regular file; where it is read from is not where its position is. What is decoded ahead of the reader
    is what fits into a pipe. ``notices``: what of the file was not heard, once the iteration is over.
    """

    def __init__(self, decoders: Decoders, source: IO[bytes]) -> None:
        self._decoders = decoders
        self._source = source
        self._job: Job | None = None
        self.duration_s: float | None = None
        self.notices: tuple[Notice, ...] = ()

    async def __aenter__(self) -> Self:
        """Raises NotAudio, FileUnreadable, TooLarge, Overloaded."""
        self._job = await self._decoders.start(self._source)
        try:
            await self._job.connect()
            kind, body = await self._frame()
            if kind is not Frame.OPENED:
                raise _refused(Refusal.CRASHED)
            self.duration_s = _duration_in(body)
        except BaseException:
            await self._end(self._job)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Returns when the source is not read any more."""
        assert self._job is not None
        await self._end(self._job)

    async def _end(self, job: Job) -> None:
        """Cancelled or not: the owner of the source closes it next, and it may still be read."""
        await to_the_end(job.end(), "end-of-decoding")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FloatArray:
        """Mono float32 at 24 kHz, a second or more, within ±1 if the decoder is sane. Raises as :meth:`__aenter__`."""
        kind, body = await self._frame()
        if kind is Frame.ENDED:
            self.notices = _notices_in(body)
            raise StopAsyncIteration
        if kind is not Frame.PCM or len(body) % 4:
            raise _refused(Refusal.CRASHED)
        return np.frombuffer(body, dtype=np.float32)

    async def _frame(self) -> tuple[Frame, bytes]:
        assert self._job is not None
        kind, body = await self._job.frame(self._decoders.limits.stall_s)
        if kind is Frame.REFUSED:
            raise _refused(_refusal_in(body))
        return kind, body


def _refused(refusal: Refusal) -> ServerError:
    if refusal is Refusal.TOO_LONG:
        return TooLarge(0, REFUSALS[refusal])
    return (FileUnreadable if refusal in _FAULTS else NotAudio)(REFUSALS[refusal])


def _json_in(body: bytes) -> dict[str, Any]:
    try:
        made = json.loads(body)
    except ValueError:
        return {}
    return made if isinstance(made, dict) else {}


def _duration_in(body: bytes) -> float | None:
    seconds = _json_in(body).get("duration_s")
    return float(seconds) if isinstance(seconds, int | float) and math.isfinite(seconds) and seconds > 0 else None


def _notices_in(body: bytes) -> tuple[Notice, ...]:
    named = _json_in(body).get("notices")
    return tuple(notice for notice in Notice if isinstance(named, list) and notice in named)


def _refusal_in(body: bytes) -> Refusal:
    try:
        return Refusal(str(_json_in(body).get("refusal")))
    except ValueError:
        return Refusal.CRASHED
