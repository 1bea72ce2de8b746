"""The HTTP door for files: ``POST`` or ``PUT /api/transcribe``. Takes a body in, hands it on, tells what was heard.

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
from collections.abc import AsyncIterator
from typing import IO, Final

from aiohttp import web

from rtc_server.access.principals import Visitor
from rtc_server.config import Settings
from rtc_server.decoding.reader import Decoders
from rtc_server.decoding.wire import Limits
from rtc_server.engine.client import EngineClient
from rtc_server.errors import (
    BadRequest,
    EngineUnavailable,
    NotAudio,
    Overloaded,
    RequestTimeout,
    ServerError,
    ServerFull,
    TimeLimit,
    TooLarge,
)
from rtc_server.services import TRANSCRIBE
from rtc_server.sessions.admission import Admission
from rtc_server.transcription import captions
from rtc_server.transcription.captions import CaptionFormat, Transcript
from rtc_server.transcription.file import Progress, transcribe
from rtc_server.usage.spelling import did_you_mean
from rtc_server.web.gate import visitor_of
from rtc_server.web.routes import Policy, Routes

logger = logging.getLogger(__name__)

_UPLOAD_S: Final = 1800.0
_GRACE_S: Final = 10.0
_LEAST_BYTES_PER_S: Final = 8 * 1024
"""Twice the bit rate of speech in Opus: who is slower than this, after a grace, keeps a place from others."""
_WRITE_BYTES: Final = 2**20
_EVENT_S: Final = 30.0
"""For which a client that reads no events keeps a slot."""
_KEEP_ALIVE_S: Final = 15.0
_LOOK_S: Final = 1.0
"""Between two looks at whether the client is still there."""
_NOT_STORED: Final = {"Cache-Control": "no-store"}
_NOT_BUFFERED: Final = {"X-Accel-Buffering": "no"}
_VTT_BEGINS: Final = "WEBVTT\n"
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
"""Never sent."""


class _ClientGone(Exception):
    """No client waits for the answer."""


class Place:
    """What one file has been promised. ``limit_s``: for which it may last, by the clock and in audio."""

    def __init__(self, engine: EngineClient, limit_s: float, waiting: set[Place]) -> None:
        self.engine = engine
        self.limit_s = limit_s
        self.leash = asyncio.timeout(limit_s)
        self.error: ServerError = TimeLimit(f"The file takes longer than the {limit_s:g} s that it may.")
        """What it ends with when the leash is at its end."""
        self._waiting = waiting
        waiting.add(self)

    def end(self, error: ServerError) -> None:
        """End it now."""
        if not self.leash.expired():
            self.error = error
            self.leash.reschedule(0.0)

    def seated(self) -> None:
        """It has its slot, which counts for itself from now on."""
        self._waiting.discard(self)


class Uploads:
    """The files of one server: those that come in and those that are transcribed. No more than there are slots for are
    let in, from the first byte on: a body that goes up for minutes must not be sent away then, and what has not got its
    slot yet costs a process to decode it."""

    def __init__(self, admission: Admission, settings: Settings, limits: Limits | None = None) -> None:
        self._admission = admission
        self.settings = settings
        self.decoders = Decoders(limits)
        self._receiving: set[Place] = set()
        self._warming: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Have a process to decode with before the first file comes."""
        if TRANSCRIBE in self._admission.engines:
            self._warming = asyncio.create_task(self._warm(), name="warm-decoders")

    async def _warm(self) -> None:
        with contextlib.suppress(Overloaded):  # it is logged, and tried again for the first file
            await self.decoders.warm()

    @contextlib.asynccontextmanager
    async def admit(self, visitor: Visitor) -> AsyncIterator[Place]:
        """A place for one file. Raises Draining (also later, when the server shuts down), TimeLimit (later), and what
        :meth:`Admission.guest` raises."""
        place: Place

        def end(error: ServerError) -> None:
            place.end(error)

        with self._admission.guest(TRANSCRIBE, visitor, end) as guest:
            engine = guest.engine
            if engine.info is None:
                raise EngineUnavailable
            if engine.slots_used + len(self._receiving) >= engine.info.slots:
                raise ServerFull
            place = Place(engine, self._admission.longest_s(visitor), self._receiving)
            try:
                async with place.leash:
                    try:
                        yield place
                    finally:
                        place.seated()
            except TimeoutError:  # its own: those within have been given names
                raise place.error from None

    async def close(self) -> None:
        """End what decodes, when no file is under way any more."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        await self.decoders.close()


UPLOADS: Final = web.AppKey("uploads", Uploads)

_FILE: Final = Policy(is_offer=True, streams_body=True)

routes = Routes()


async def _when_admitted(_: web.Request) -> None:
    """``Expect: 100-continue`` (RFC 9110, section 10.1.1) is answered after the door has let the request in."""


# As curl -T sends a file, which puts its name behind a URL that ends in a slash.
@routes.add("PUT", "/api/transcribe/{name:[^/]*}", _FILE, _when_admitted)
@routes.add("PUT", "/api/transcribe", _FILE, _when_admitted)
@routes.add("POST", "/api/transcribe", _FILE, _when_admitted)
async def transcribe_file(request: web.Request) -> web.StreamResponse:
    uploads = request.app[UPLOADS]
    answer = _answer_to(request)
    started = time.monotonic()
    try:
        async with uploads.admit(visitor_of(request)) as place:
            with _temporary_file() as file:
                await _receive(request, file, uploads.settings.max_upload_mb * 1_000_000)
                transcript = await _transcribed(uploads, place, file, answer)
        response = await answer.end(transcript)
    except ServerError as error:
        return await answer.fail(error)
    except _ClientGone:
        logger.info("a file was given up: its client has gone")
        return web.Response(status=_CLIENT_GONE)
    audio_s, took_s = transcript.duration_ms / 1000, time.monotonic() - started
    logger.info("transcribed a file: %.1f s of audio, %d words, in %.1f s", audio_s, len(transcript.words), took_s)
    return response


async def _transcribed(uploads: Uploads, place: Place, file: IO[bytes], answer: _Answer) -> Transcript:
    """The work in a task of its own, so that the client is looked after however long an engine is silent."""

    async def tell(progress: Progress) -> None:
        place.seated()
        await answer.tell(progress)

    work = asyncio.create_task(
        transcribe(place.engine, uploads.decoders, file, uploads.settings, tell, place.limit_s), name="transcribe-file"
    )
    try:
        while not (await asyncio.wait([work], timeout=_LOOK_S))[0]:
            await answer.pulse()
        return work.result()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


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
    """Read what has come since the last time; empty at the end."""
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


class _Answer:
    """How what is heard gets to the client. The status waits until there is something to hear, and then a while: most
    of what can go wrong has done so by then, and is told by the status."""

    content_type = ""
    first_s: float = 0.0
    """When the answer begins at the latest, once the file is being heard."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None
        self._writing = asyncio.Lock()
        self._began_at: float | None = None
        self._wrote_at = 0.0

    async def tell(self, progress: Progress) -> None:
        """Now and then. Raises _ClientGone when the client has left."""
        _see_client(self._request)
        if self._began_at is None:
            self._began_at = time.monotonic()

    async def pulse(self) -> None:
        """As often as it likes: something goes out before what stands between gives the connection up. Raises
        _ClientGone."""
        _see_client(self._request)
        if self._began_at is None:
            return
        now = time.monotonic()
        if now - self._began_at > self.first_s and now - self._wrote_at > _KEEP_ALIVE_S:
            await self._write(self.filler())

    def filler(self) -> str:
        """What changes nothing."""
        raise NotImplementedError

    async def end(self, transcript: Transcript) -> web.StreamResponse:
        raise NotImplementedError

    async def fail(self, error: ServerError) -> web.StreamResponse:
        """Raises ``error`` if there is still a status to tell it by."""
        raise NotImplementedError

    async def _write(self, text: str) -> web.StreamResponse:
        self._wrote_at = time.monotonic()
        try:
            async with asyncio.timeout(_EVENT_S), self._writing:
                if self._response is None:
                    response = web.StreamResponse(
                        headers={"Content-Type": self.content_type} | _NOT_STORED | _NOT_BUFFERED
                    )
                    await response.prepare(self._request)
                    self._response = response
                await self._response.write(text.encode())
        except (ConnectionError, TimeoutError):
            raise _ClientGone from None
        return self._response


class _Document(_Answer):
    """Everything at the end; before it, line ends, which all of these formats ignore where they are sent."""

    first_s = 10.0

    def __init__(self, request: web.Request, form: CaptionFormat) -> None:
        super().__init__(request)
        self._form = form
        self.content_type = f"{_TYPES[form]}; charset=utf-8"

    def filler(self) -> str:
        return _VTT_BEGINS if self._form == "vtt" and self._response is None else "\n"

    async def end(self, transcript: Transcript) -> web.StreamResponse:
        text = captions.render(transcript, self._form)
        if self._response is None:
            return web.Response(text=text, content_type=_TYPES[self._form], charset="utf-8", headers=_NOT_STORED)
        return await self._write(text.removeprefix(_VTT_BEGINS) if self._form == "vtt" else text)

    async def fail(self, error: ServerError) -> web.StreamResponse:
        """JSON says so; other formats have no word for it, and the connection breaks off."""
        if self._response is None:
            raise error
        with contextlib.suppress(_ClientGone):
            if self._form == "json":
                return await self._write(json.dumps({"error": error.as_dict()}) + "\n")
            await self._write(f"\nerror: {error.message}\n")
            if self._request.transport is not None:
                self._request.transport.close()
        return self._response


class _Events(_Answer):
    """Server-sent events (HTML, section 9.2): words as they are found."""

    content_type = _EVENTS

    async def tell(self, progress: Progress) -> None:
        await super().tell(progress)
        if progress.words:
            await self._write("".join(_event("word", captions.word_dict(word)) for word in progress.words))

    def filler(self) -> str:
        return ": still here\n\n"

    async def end(self, transcript: Transcript) -> web.StreamResponse:
        warnings = [_event("warning", captions.warning_dict(warning)) for warning in transcript.warnings]
        done = {"duration_ms": transcript.duration_ms, "words": len(transcript.words)}
        return await self._write("".join([*warnings, _event("done", done)]))

    async def fail(self, error: ServerError) -> web.StreamResponse:
        if self._response is None:
            raise error
        with contextlib.suppress(_ClientGone):
            await self._write(_event("error", error.as_dict()))
        return self._response


def _see_client(request: web.Request) -> None:
    """Raises _ClientGone: aiohttp does not end a handler whose client hangs up."""
    if request.transport is None or request.transport.is_closing():
        raise _ClientGone


def _event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
