"""One address before several media nodes, as a reverse proxy is: a request about a session goes to the node that has
it, any other to a node that answers.

For clients on this machine. A connection carries one request: the next one may be another node's. Media does not pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

_MAX_HEAD_BYTES: Final = 65_536
_MAX_KEPT_BYTES: Final = 1_000_000
"""Of a body that can be sent a second time, to another node."""
_HEAD_S: Final = 30.0
_CONNECT_S: Final = 2.0
_ABOUT_SESSION: Final = re.compile(rb"[/_=]([A-Za-z0-9.]+)-\d+-[A-Za-z0-9_-]{22}(?:[/?& ]|$)")
_NOT_OURS: Final = (b"connection", b"x-forwarded-for")
_UNAVAILABLE: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class _Request:
    """``head``: as it is passed on. ``body``: what is kept of it; None if it is passed on as it comes."""

    node: str | None
    head: bytes
    body: bytes | None


class Front:
    """``nodes``: where each listens, ``HOST:PORT`` by the name with which ids of its sessions begin."""

    def __init__(self, nodes: Mapping[str, str]) -> None:
        self._nodes = nodes
        self._turns = itertools.count()

    @contextlib.asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """The port. Raises OSError if it is taken."""
        open_now: set[asyncio.StreamWriter] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            open_now.add(writer)
            try:
                with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                    await self._serve(reader, writer)
            finally:
                open_now.discard(writer)
                writer.close()

        server = await asyncio.start_server(serve, host, port, limit=_MAX_HEAD_BYTES)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for writer in list(open_now):
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HEAD_S):
            request = await _read(reader)
        places = list(self._places(request))
        for address in places:
            last = address == places[-1] or request.body is None
            if await _passed_on(address, request, reader, writer, keep_503=last):
                return
        writer.write(_UNAVAILABLE)
        await writer.drain()

    def _places(self, request: _Request) -> Iterable[str]:
        """Which nodes to ask, one after the other."""
        if request.node is not None and request.node in self._nodes:
            return [self._nodes[request.node]]
        first = next(self._turns) % len(self._nodes)
        addresses = list(self._nodes.values())
        return [*addresses[first:], *addresses[:first]]


async def _read(reader: asyncio.StreamReader) -> _Request:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n").split(b"\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    kept = [line for line in lines if line.partition(b":")[0].strip().lower() not in _NOT_OURS]
    connection = b"upgrade" if b"upgrade" in headers else b"close"
    head = b"\r\n".join([first, *kept, b"Connection: " + connection, b"", b""])
    about = _ABOUT_SESSION.search(first.split(b" ")[1]) if first.count(b" ") == 2 else None
    return _Request(None if about is None else about[1].decode(), head, await _read_body(reader, headers))


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[bytes, bytes]) -> bytes | None:
    length = headers.get(b"content-length", b"0")
    whole = not {b"upgrade", b"transfer-encoding", b"expect"} & headers.keys()
    if whole and length.isdigit() and int(length) <= _MAX_KEPT_BYTES:
        return await reader.readexactly(int(length))
    return None


async def _passed_on(
    address: str, request: _Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep_503: bool
) -> bool:
    """Whether the node has answered; one that says 503 has not, if another one can be asked."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(_CONNECT_S):
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError):
        return False
    there = asyncio.create_task(_say(request, reader, far_writer), name="front-there")
    try:
        begun = await far_reader.read(_MAX_HEAD_BYTES)
        if not begun and request.body is None:
            return True  # half of what it was told is gone: its client hears nothing, and knows as much
        if not begun or (begun.split(b" ", 2)[1:2] == [b"503"] and not keep_503):
            return False
        writer.write(begun)
        await _copy(far_reader, writer)
        return True
    except OSError:
        return False
    finally:
        there.cancel()
        await asyncio.gather(there, return_exceptions=True)
        far_writer.close()


async def _say(request: _Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The request, and what the client says after it: the rest of a body, or frames of a WebSocket."""
    writer.write(request.head + (request.body or b""))
    await _copy(reader, writer)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_MAX_HEAD_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
