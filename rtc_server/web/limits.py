"""Limits HTTP connections: their number, and how long each may take.

aiohttp bounds what a request's head may hold, and for how long a connection may idle. It does not bound how slowly a
head trickles in, how slowly an answer is taken, or how many connections there are; and what is not HTTP it answers in
its own words, and logs with the client's address. All of that is put right here, in a subclass of its request handler
which rests on public methods. ``tests/web/test_limits.py`` holds aiohttp to what is relied upon.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp import web

from rtc_server.access.addresses import Proxies, counted_by, parse_address
from rtc_server.errors import BadRequest, InternalError, RequestTimeout, ServerError, TooManyConnections
from rtc_server.system import descriptors
from rtc_server.system.descriptors import Descriptors, is_shortage
from rtc_server.web.envelopes import Envelope, error_response
from rtc_server.web.resets import drop

logger = logging.getLogger(__name__)

_MAX_CONNECTIONS: Final = 4096
_SURPLUS: Final = 16
"""Beyond those, or fewer where files are few: told that there are too many, or how the server is, and closed."""
_SURPLUS_S: Final = 2.0
_SELDOM_S: Final = 60.0
_MAX_HEADERS: Final = 64
"""Browsers send some twenty, proxies add some more. Each has at most 8 KiB."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """``head_s``: for a request's head, from its first byte. ``idle_s``: between requests, more than the 60 s for which
    proxies keep a connection. ``lingering_s``: for the rest of a body that was refused, which is thrown away, so that
    the client gets to read why. ``stalled_s``: for a client that takes nothing of its answer."""

    head_s: float = 10.0
    idle_s: float = 75.0
    lingering_s: float = 2.0
    stalled_s: float = 30.0
    in_all: int = _MAX_CONNECTIONS
    per_address: int = 256

    @classmethod
    def of_this_process(cls) -> ConnectionLimits:
        """At most half of the files that may be open: the others are for the media."""
        in_all = min(_MAX_CONNECTIONS, descriptors.limit() // 2)
        return cls(in_all=in_all, per_address=min(256, in_all // 2))


@dataclass(frozen=True, slots=True)
class Entry:
    """One connection that came in, ``counted`` by its address. ``surplus``: there are enough already, and it is not."""

    counted: str
    surplus: bool


class Connections:
    """Counts those that are open, in all and by address; makes new ones for ``loop.create_server``.

    A trusted proxy has no limit of its own: its connections are those of many. One that is too many is not cut off but
    told so, for a client cannot tell a reset from a server that is gone; and who looks after the server still gets to
    know how it is. Of these, the one that has said nothing for longest makes room for the next.
    """

    def __init__(
        self, server: web.Server, limits: ConnectionLimits, proxies: Proxies, files: Descriptors | None = None
    ) -> None:
        self.limits = limits
        self._server = server
        self._proxies = proxies
        self._files = files or Descriptors()
        self._open: Counter[str] = Counter()
        self._surplus: dict[Connection, None] = {}
        self._complained_at = -math.inf

    def __call__(self) -> Connection:
        return Connection(self, self._server)

    def admitted(self, entry: Entry) -> Connection:
        """One for a connection that has been counted already."""
        return Connection(self, self._server, entry)

    @property
    def surplus_places(self) -> int:
        """How many of those that are too many may be there at a time, to be told so."""
        return max(2, min(_SURPLUS, self._files.most // _SURPLUS))

    def __len__(self) -> int:
        return self._open.total()

    def enter(self, peer: str) -> Entry | None:
        """Count a connection. None: there is not even a descriptor to tell it anything by."""
        address = parse_address(peer)
        counted = counted_by(address)
        full = len(self) >= self.limits.in_all or (
            self._open[counted] >= self.limits.per_address and not self._proxies.trusts(address)
        )
        if not self._files.suffice_for_http(len(self)):
            full = True
            self._complain()
            if not self._files.suffice_for_an_answer:
                return None
        self._files.take()
        if not full:
            self._open[counted] += 1
        return Entry(counted, full)

    def enter_sibling(self) -> Entry:
        """Count one of another process of this server, which is never one too many."""
        self._files.take()
        self._open[""] += 1
        return Entry("", surplus=False)

    def leave(self, entry: Entry) -> None:
        self._files.take(-1)
        if entry.surplus:
            return
        self._open[entry.counted] -= 1
        if not self._open[entry.counted]:
            del self._open[entry.counted]

    def add_surplus(self, connection: Connection) -> None:
        """It is told, if it asks soon."""
        self._surplus[connection] = None
        if len(self._surplus) > self.surplus_places:
            next((one for one in self._surplus if not one.handling), next(iter(self._surplus))).cut_off()

    def remove_surplus(self, connection: Connection) -> None:
        self._surplus.pop(connection, None)

    def _complain(self) -> None:
        """Once in a while: what makes it so may go on for long."""
        if time.monotonic() - self._complained_at > _SELDOM_S:
            self._complained_at = time.monotonic()
            logger.warning(
                "of %d file descriptors, those that are left are kept for the media: HTTP is refused", self._files.most
            )


class Connection(web.RequestHandler):
    """aiohttp's connection with a watch on it.

    The handler of requests says when one begins and ends; in between, this connection's time is theirs.
    """

    def __init__(self, connections: Connections, server: web.Server, entry: Entry | None = None) -> None:
        """``entry``: with which it was counted; without, it is when it is made."""
        limits = connections.limits
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # as AppRunner's, which takes None for "no log"
            keepalive_timeout=limits.idle_s,
            lingering_time=limits.lingering_s,
            max_headers=_MAX_HEADERS,
            auto_decompress=False,
        )
        self._connections = connections
        self._limits = limits
        self._entry = entry
        self.was_made = False
        self.handling = False
        self._head_began_at: float | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def request_began(self) -> float:
        """The head is here. When its first byte was, in monotonic seconds."""
        self.handling = True
        _cancel(self._watch)
        began_at, self._head_began_at = self._head_began_at, None
        return time.monotonic() if began_at is None else began_at

    def request_ended(self) -> None:
        self.handling = False

    @property
    def surplus(self) -> bool:
        """Whether it is one too many: all that it gets is one answer."""
        return self._entry is not None and self._entry.surplus

    def cut_off(self) -> None:
        drop(self.transport)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.was_made = True
        if self._entry is None:
            peer = transport.get_extra_info("peername")
            self._entry = self._connections.enter(peer[0] if isinstance(peer, tuple) else "")
        if self._entry is None:
            logger.debug("too many connections: one is refused")
            cast(asyncio.Transport, transport).abort()  # uvloop's are not subclasses of it
            return
        super().connection_made(transport)
        if self.surplus:
            self._connections.add_surplus(self)
            self._stall = asyncio.get_running_loop().call_later(_SURPLUS_S, self.cut_off)

    def data_received(self, data: bytes) -> None:
        if data and not self.handling and self._head_began_at is None:
            self._head_began_at = time.monotonic()
            self._watch = asyncio.get_running_loop().call_later(self._limits.head_s, self._on_late_head)
        super().data_received(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        _cancel(self._stall)
        self._expect_taking()

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._stall)

    def connection_lost(self, exc: BaseException | None) -> None:
        _cancel(self._watch)
        _cancel(self._stall)
        super().connection_lost(exc)
        self._connections.remove_surplus(self)
        if self._entry is not None:
            self._connections.leave(self._entry)
            self._entry = None

    def _expect_taking(self) -> None:
        """Cut it off unless the client takes some of what waits for it: a large answer waits as one."""
        if self.transport is not None:
            waiting = self.transport.get_write_buffer_size()
            self._stall = asyncio.get_running_loop().call_later(self._limits.stalled_s, self._on_stall, waiting)

    def _on_stall(self, waited: int) -> None:
        if self.transport is not None and self.transport.get_write_buffer_size() < waited:
            self._expect_taking()
        else:
            self.cut_off()

    def _on_late_head(self) -> None:
        """No request, so no handler that answers: the words are ours, all of them."""
        if self.transport is not None:
            error = RequestTimeout()
            body = json.dumps({"error": error.as_dict()}).encode()
            self.transport.write(
                f"HTTP/1.1 {error.http_status} Request Timeout\r\nContent-Type: application/json; charset=utf-8\r\n"
                f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n".encode()
                + body
            )
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP, or too much of it, as the client's fault; log anything else as ours."""
        error: ServerError
        if is_shortage(exc):
            error = TooManyConnections()
        elif status < InternalError.http_status:
            error = BadRequest("This is not HTTP as it should be, or its head is too large.")
        else:
            error = InternalError()
            logger.error("a request failed outside its handler", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already")
        response = error_response(error, Envelope.JSON)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """aiohttp gives up a connection after a handler has answered: mostly for the rest of a body that no handler
        wanted, and that is not what it should be."""
        cause = kw.get("exc_info")
        if isinstance(cause, web.RequestPayloadError | web.PayloadAccessError | ConnectionError):
            logger.debug("a connection is closed: %s", type(cause).__name__)
        else:
            logger.error("a connection failed", exc_info=cause)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
