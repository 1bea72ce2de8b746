"""The HTTP door for files: ``POST /api/transcribe``. Takes a body in, hands it on, tells what was heard.

Owns who may send a file, how much and how slowly, and where it lies meanwhile: in a temporary file without a name,
which nothing in the request leads to and which is gone with its descriptor. No media logic.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from typing import IO, Final, Protocol

from aiohttp import web

from rtc_server.access import visitor_of
from rtc_server.auth import Visitor
from rtc_server.config import Settings
from rtc_server.engine.client import EngineClient
from rtc_server.errors import (
    BadRequest,
    Draining,
    EngineUnavailable,
    Forbidden,
    NotAudio,
    Overloaded,
    RequestTimeout,
    ServerError,
    ServerFull,
    TooLarge,
    UnknownService,
)
from rtc_server.protocols import captions
from rtc_server.protocols.captions import CaptionFormat, Transcript
from rtc_server.recordings import Progress, transcribe
from rtc_server.registry import Registry
from rtc_server.services import TRANSCRIBE
from rtc_server.spelling import did_you_mean

logger = logging.getLogger(__name__)

_UPLOAD_S: Final = 1800.0
_GRACE_S: Final = 10.0
_LEAST_BYTES_PER_S: Final = 8 * 1024
"""Twice the bit rate of speech in Opus: who is slower than this, after a grace, keeps a place from others."""
_WRITE_BYTES: Final = 2**20
_EVENT_S: Final = 30.0
"""For which somebody who reads no events keeps a slot."""
_KEEP_ALIVE_S: Final = 15.0
_EVENTS: Final = "text/event-stream"
_FORMAT: Final = "format"
_SHOWN: Final = 80
"""Characters of a parameter's name that are told back."""
_TYPES: Final[dict[CaptionFormat, str]] = {
    "json": "application/json",
    "txt": "text/plain",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
}
_CLIENT_GONE: Final = 499
"""For nobody to see."""


class _ClientGone(Exception):
    """Nobody waits for the answer."""


class Uploads:
    """The files of one server: those that come in and those that are transcribed. Makes no more than there are slots
    for, lest people wait minutes for a body to go up only to be sent away."""

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry = registry
        self.settings = settings
        self._receiving = 0
        self._leashes: set[asyncio.Timeout] = set()
        self._none = asyncio.Event()
        self._none.set()

    @contextlib.asynccontextmanager
    async def admit(self, visitor: Visitor) -> AsyncIterator[EngineClient]:
        """A place for one file. Raises Draining (also later, when the server shuts down), UnknownService, Forbidden,
        EngineUnavailable, ServerFull."""
        engine = self._door(visitor)
        try:
            async with asyncio.timeout(None) as leash:
                self._leashes.add(leash)
                self._none.clear()
                try:
                    yield engine
                finally:
                    self._leashes.discard(leash)
                    if not self._leashes:
                        self._none.set()
        except TimeoutError:  # its own: those within have been given names
            raise Draining from None

    @contextlib.contextmanager
    def receiving(self) -> Iterator[None]:
        """While a body comes in: it will want a slot."""
        self._receiving += 1
        try:
            yield
        finally:
            self._receiving -= 1

    async def drain(self, grace_s: float) -> None:
        """Wait for what is under way, then end it. That nothing new comes is the registry's to say."""
        try:
            async with asyncio.timeout(grace_s):
                await self._none.wait()
        except TimeoutError:
            logger.info("%d files are dropped by the shutdown", len(self._leashes))
        await self.close()

    async def close(self) -> None:
        """End everything now."""
        for leash in self._leashes:
            if not leash.expired():
                leash.reschedule(0.0)
        await self._none.wait()

    def _door(self, visitor: Visitor) -> EngineClient:
        registry = self._registry
        if registry.draining:
            raise Draining
        engine = registry.engines.get(TRANSCRIBE)
        if engine is None:
            raise UnknownService(tuple(registry.engines))
        if not visitor.principal.may_use(TRANSCRIBE):
            raise Forbidden
        if not engine.ready or engine.info is None:
            raise EngineUnavailable
        if engine.slots_used + self._receiving >= engine.info.slots:
            raise ServerFull
        return engine


UPLOADS: Final = web.AppKey("uploads", Uploads)


async def _when_admitted(_: web.Request) -> None:
    """``Expect: 100-continue`` (RFC 9110, section 10.1.1) is answered after the door has let the request in."""


async def transcribe_file(request: web.Request) -> web.StreamResponse:
    uploads = request.app[UPLOADS]
    answer = _answer_to(request)
    started = time.monotonic()
    try:
        async with uploads.admit(visitor_of(request)) as engine:
            with _temporary_file() as file:
                with uploads.receiving():
                    await _receive(request, file, uploads.settings.max_upload_mb * 1_000_000)
                transcript = await transcribe(engine, file, uploads.settings, answer.tell)
        response = await answer.end(transcript)
    except ServerError as error:
        return await answer.fail(error)
    except _ClientGone:
        logger.info("a file was given up: its client has gone")
        return web.Response(status=_CLIENT_GONE)
    audio_s, took_s = transcript.duration_ms / 1000, time.monotonic() - started
    logger.info("transcribed a file: %.1f s of audio, %d words, in %.1f s", audio_s, len(transcript.words), took_s)
    return response


routes: Final = [web.post("/api/transcribe", transcribe_file, expect_handler=_when_admitted)]


def _answer_to(request: web.Request) -> _Answer:
    """Raises BadRequest, NotAudio."""
    for name in request.query:
        if name != _FORMAT:
            raise BadRequest(f"There is no parameter {name[:_SHOWN]!r}.{did_you_mean(name, [_FORMAT])}")
    wanted = request.query.get(_FORMAT, "json")
    form = next((form for form in _TYPES if form == wanted), None)
    if form is None:
        raise BadRequest(f"format must be one of: {', '.join(_TYPES)}.")
    if request.content_type.startswith("multipart/"):
        raise NotAudio("The body is a form. Send the file itself as the body.")
    return _Events(request) if _EVENTS in request.headers.get("Accept", "") else _Document(request, form)


def _temporary_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise _no_room(error) from None


def _no_room(error: OSError) -> Overloaded:
    logger.error("no room for a file that is sent: %s", error.strerror)
    return Overloaded("The server has no room for the file. Try again later.")


async def _receive(request: web.Request, file: IO[bytes], limit_bytes: int) -> None:
    """The body into ``file``, which is then at its beginning. Raises TooLarge, RequestTimeout, BadRequest, Overloaded.

    The length that the request names is good for refusing, not for believing.
    """
    if (request.content_length or 0) > limit_bytes:
        raise TooLarge(limit_bytes)
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    started, received = asyncio.get_running_loop().time(), 0
    kept = bytearray()
    while chunk := await _chunk(request, started + min(_UPLOAD_S, _GRACE_S + received / _LEAST_BYTES_PER_S)):
        received += len(chunk)
        if received > limit_bytes:
            raise TooLarge(limit_bytes)
        kept += chunk
        if len(kept) >= _WRITE_BYTES:
            await _keep(file, kept)
            kept.clear()
    await _keep(file, kept, rewind=True)


async def _chunk(request: web.Request, deadline: float) -> bytes:
    """What has come since the last time, empty at the end."""
    try:
        async with asyncio.timeout_at(deadline):
            return await request.content.readany()
    except TimeoutError:
        raise RequestTimeout from None
    except OSError:
        raise _ClientGone from None
    except web.RequestPayloadError:
        raise BadRequest("The body cannot be read: it breaks off, or is not encoded as it says.") from None


async def _keep(file: IO[bytes], data: bytearray, rewind: bool = False) -> None:
    def write(whole: bytes) -> None:
        file.write(whole)
        if rewind:
            file.seek(0)

    try:
        await asyncio.to_thread(write, bytes(data))
    except OSError as error:
        raise _no_room(error) from None


class _Answer(Protocol):
    """How what is heard gets to the client."""

    async def tell(self, progress: Progress) -> None:
        """Now and then. Raises when nobody listens any more."""

    async def end(self, transcript: Transcript) -> web.StreamResponse: ...

    async def fail(self, error: ServerError) -> web.StreamResponse:
        """May raise ``error``."""


class _Document:
    """Everything at the end."""

    def __init__(self, request: web.Request, form: CaptionFormat) -> None:
        self._request = request
        self._form = form

    async def tell(self, progress: Progress) -> None:
        _see_client(self._request)

    async def end(self, transcript: Transcript) -> web.StreamResponse:
        return web.Response(
            text=captions.render(transcript, self._form),
            content_type=_TYPES[self._form],
            charset="utf-8",
            headers={"Cache-Control": "no-store"},
        )

    async def fail(self, error: ServerError) -> web.StreamResponse:
        raise error


class _Events:
    """Server-sent events (HTML, section 9.2): words as they are found."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None
        self._wrote_at = 0.0

    async def tell(self, progress: Progress) -> None:
        _see_client(self._request)
        events = [_event("word", captions.word_dict(word)) for word in progress.words]
        if events or time.monotonic() - self._wrote_at > _KEEP_ALIVE_S:
            await self._write("".join(events) or ": still here\n\n")

    async def end(self, transcript: Transcript) -> web.StreamResponse:
        done = {"duration_ms": transcript.duration_ms, "words": len(transcript.words)}
        return await self._write(_event("done", done))

    async def fail(self, error: ServerError) -> web.StreamResponse:
        if self._response is None:
            raise error
        with contextlib.suppress(_ClientGone):
            await self._write(_event("error", error.as_dict()))
        return self._response

    async def _write(self, text: str) -> web.StreamResponse:
        self._wrote_at = time.monotonic()
        try:
            async with asyncio.timeout(_EVENT_S):
                if self._response is None:
                    headers = {"Content-Type": _EVENTS, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
                    self._response = web.StreamResponse(headers=headers)
                    await self._response.prepare(self._request)
                await self._response.write(text.encode())
        except (ConnectionError, TimeoutError):
            raise _ClientGone from None
        return self._response


def _see_client(request: web.Request) -> None:
    """Raises _ClientGone: aiohttp does not end a handler whose client hangs up."""
    if request.transport is None or request.transport.is_closing():
        raise _ClientGone


def _event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
