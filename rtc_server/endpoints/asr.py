"""The door for clients of Kyutai's streaming speech-to-text: a WebSocket each, a stream of the service ``transcribe``.

Owns the open sockets: who gets one, until when, and how much audio all of them may keep.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from aiohttp import web

from rtc_server.access.principals import Visitor
from rtc_server.audio import MODEL_RATE_HZ
from rtc_server.config import Settings
from rtc_server.endpoints.asr_socket import AsrSocket, SocketLimits
from rtc_server.endpoints.sockets import make_socket
from rtc_server.errors import (
    Forbidden,
    ServerError,
    TimeLimit,
    Unauthorized,
    UnknownService,
)
from rtc_server.metrics import Metrics
from rtc_server.protocols import asr
from rtc_server.services import TRANSCRIBE
from rtc_server.sessions.admission import Admission
from rtc_server.web.gate import visitor_of
from rtc_server.web.routes import Policy, Routes

ASR_PATH: Final = "/api/asr-streaming"


class AsrSockets:
    """All open sockets of this process."""

    def __init__(
        self, admission: Admission, settings: Settings, metrics: Metrics, limits: SocketLimits | None = None
    ) -> None:
        self.limits = limits or SocketLimits()
        self._admission = admission
        self._settings = settings
        self._metrics = metrics
        self._open: set[AsrSocket] = set()
        metrics.asr_sockets.set_function(lambda: len(self._open))

    def __len__(self) -> int:
        return len(self._open)

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """One socket's life. Raises UnknownService, Forbidden, BadRequest before it is a WebSocket; after that, all
        that goes wrong is told as the protocol has it: browsers show a page nothing of an HTTP error."""
        visitor = visitor_of(request)
        if TRANSCRIBE not in self._admission.engines:
            raise UnknownService(tuple(self._admission.engines))
        if not visitor.principal.may_use(TRANSCRIBE):
            raise Forbidden
        response = make_socket(request, max_message_bytes=2 * asr.MAX_MESSAGE_BYTES, close_s=self.limits.close_s)
        await response.prepare(request)
        socket = AsrSocket(request, response, self.limits, self._metrics, self._has_room)
        self._open.add(socket)
        try:
            await self._run(socket, visitor)
        finally:
            self._open.discard(socket)
        return response

    async def _run(self, socket: AsrSocket, visitor: Visitor) -> None:
        """Under the limits of all sessions, and for no longer than its token is good."""
        until = visitor.principal.lasts_until
        ends: list[tuple[float, ServerError]] = [
            (self._admission.longest_s(visitor), TimeLimit("This has lasted as long as it may."))
        ]
        if until is not None:
            expired = Unauthorized("The token that opened this is good no longer.")
            ends.append((until - time.time(), expired))
        try:
            with self._admission.guest(TRANSCRIBE, visitor, socket.end, connecting=True) as guest:
                end_s, error = min(ends, key=lambda end: end[0])
                timer = asyncio.get_running_loop().call_later(end_s, socket.end, error)
                try:
                    await socket.run(guest, self._settings.pause_threshold)
                finally:
                    timer.cancel()
        except ServerError as error:
            await socket.refuse(error)

    def _has_room(self, buffered_samples: int) -> bool:
        """Whether a socket that has buffered so much may take more."""
        limits, own_s = self.limits, buffered_samples / MODEL_RATE_HZ
        if own_s >= limits.buffered_s:
            return False
        in_all_s = sum(socket.buffered_samples for socket in self._open) / MODEL_RATE_HZ
        return own_s < limits.own_buffered_s or in_all_s < limits.all_buffered_s


ASR_SOCKETS: Final = web.AppKey("asr_sockets", AsrSockets)

routes = Routes()


@routes.get(ASR_PATH, Policy(), head=False)
async def asr_streaming(request: web.Request) -> web.WebSocketResponse:
    return await request.app[ASR_SOCKETS].serve(request)
