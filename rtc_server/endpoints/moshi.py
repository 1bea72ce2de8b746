"""Moshi's own WebSocket: ``/api/chat``, and ``/ws`` for a dialect of it that the operator chooses.

The transport of such a session (Ogg/Opus both ways, a frame at a time, text), and the handler that opens it. What the
messages are is ``protocols.moshi``'s; all else is the session's.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from aiohttp import web

from rtc_server.audio import FloatArray
from rtc_server.config import Settings
from rtc_server.endpoints.socket_transport import SocketTransport, session_socket, telling_refusals, until_over
from rtc_server.endpoints.sockets import Message
from rtc_server.errors import NotFound, RateLimited, ServerError
from rtc_server.media.ogg_opus import OggOpusReader, OggOpusWriter
from rtc_server.protocols import events, moshi
from rtc_server.protocols.events import OfferOptions
from rtc_server.protocols.moshi import Dialect
from rtc_server.services import TRANSCRIBE
from rtc_server.sessions.state import EndReason
from rtc_server.sessions.transport import TransportOwner
from rtc_server.signaling import REGISTRY, SETTINGS
from rtc_server.system.rate_limit import TokenBucket
from rtc_server.web.gate import visitor_of_a_socket
from rtc_server.web.routes import Policy, Routes

MAX_MESSAGE_BYTES: Final = 64 * 1024
_MESSAGES_PER_S: Final = 100
"""Clients send 12.5 to 50 a second, by the length of their pages."""
_MESSAGE_BURST: Final = 300
_PACKETS_PER_S: Final = 200
"""Of Opus: twice as many as the shortest that are in use, of 10 ms, are in real time."""
_PACKET_BURST: Final = 1000
_PACKETS_AT_ONCE: Final = 16
"""Decoded before others have their turn: half a millisecond."""

routes = Routes()


class MoshiTransport(SocketTransport):
    """One client's WebSocket: Ogg/Opus and text."""

    endpoint = "moshi"

    def __init__(
        self,
        owner: TransportOwner,
        request: web.Request,
        socket: web.WebSocketResponse,
        dialect: Dialect,
        writer: OggOpusWriter,
    ) -> None:
        super().__init__(owner, request, socket)
        self._dialect = dialect
        self._reader = OggOpusReader(lenient=True)
        self._writer = writer
        self._bucket = TokenBucket(_MESSAGES_PER_S, _MESSAGE_BURST, self.opened_at)
        self._packets = TokenBucket(_PACKETS_PER_S, _PACKET_BURST, self.opened_at)

    def greeting(self) -> list[Message]:
        handshake: list[Message] = [moshi.HANDSHAKE_MESSAGE] if self._dialect.handshake else []
        return [*handshake, moshi.encode_audio(self._writer.headers())] if self._dialect.speaks else handshake

    def send(self, message: str, event: events.ServerEvent | None) -> bool:
        """Send the text and the errors among a session's messages."""
        if not self.channel_open:
            return False
        match event:
            case events.Text(delta):
                self.say(moshi.encode_text(delta, self._dialect))
            case events.Word(text):
                self.say(moshi.encode_text(f"{text} ", self._dialect))
            case events.Error(message=sentence) if self._dialect.errors:
                self.say(moshi.encode_error(sentence))
            case events.Disconnected(reason):
                self.reason = EndReason(reason)
            case _:
                pass
        return True

    def play(self, pcm: FloatArray, now: float) -> None:
        if self._dialect.speaks:
            super().play(pcm, now)

    def voice(self, pcm: FloatArray) -> Message:
        return moshi.encode_audio(self._writer.encode(pcm))

    async def take(self, message: Message) -> None:
        """Many packets in a message leave time for all others. Raises BadMessage, RateLimited."""
        if not self._bucket.allow(time.monotonic()):
            raise RateLimited("Messages come faster than audio lasts.")
        if isinstance(message, str):  # ignored, as by Kyutai's servers
            return
        for number, pcm in enumerate(self._reader.read(moshi.audio_of(message, self._dialect)), 1):
            if not self._packets.allow(time.monotonic()):
                raise RateLimited("Audio comes faster than it lasts.")
            self.hear(pcm)
            if number % _PACKETS_AT_ONCE == 0:
                await asyncio.sleep(0)


@routes.get("/api/chat", Policy(), head=False)
async def chat(request: web.Request) -> web.WebSocketResponse:
    """A conversation with the server's model, for clients of Moshi's."""
    return await _converse(request, moshi.MOSHI, None)


@routes.get("/ws", Policy(), head=False)
async def other_dialect(request: web.Request) -> web.WebSocketResponse:
    """The dialect that ``--ws`` chooses: QuiLLMan's conversation, or a transcript as text. Raises NotFound if it says
    neither."""
    match request.app[SETTINGS].ws:
        case "quillman":
            return await _converse(request, moshi.QUILLMAN, None)
        case "transcript":
            return await _converse(request, moshi.TRANSCRIPT, TRANSCRIBE)
        case _:
            raise NotFound


async def _converse(request: web.Request, dialect: Dialect, service: str | None) -> web.WebSocketResponse:
    """One socket's life."""
    settings = request.app[SETTINGS]
    socket = session_socket(request, MAX_MESSAGE_BYTES)

    def words(error: ServerError) -> Message | None:
        return moshi.encode_error(error.message) if dialect.errors else None

    async with telling_refusals(request, socket, words):
        with request.app[REGISTRY].counted():
            await _open(request, socket, dialect, service, settings)
    return socket


async def _open(
    request: web.Request, socket: web.WebSocketResponse, dialect: Dialect, service: str | None, settings: Settings
) -> None:
    # These protocols have no place for the user's words.
    options = OfferOptions(captions=False)
    visitor = visitor_of_a_socket(request)
    opening = request.app[REGISTRY].opening(service, options, visitor, resumable=False)
    async with opening as session:
        writer = OggOpusWriter(settings.bitrate_bps, settings.opus_complexity)
        transport = MoshiTransport(session, request, socket, dialect, writer)
        await socket.prepare(request)
        session.attach(transport)
        session.start()
    await until_over(session, transport)
