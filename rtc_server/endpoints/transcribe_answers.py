"""How what is heard in a file gets to its client: as a document at the end, or as server-sent events on the way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Final

from aiohttp import web

from rtc_server.errors import (
    BadRequest,
    NotAudio,
    ServerError,
)
from rtc_server.transcription import captions
from rtc_server.transcription.captions import CaptionFormat, Transcript
from rtc_server.transcription.file import Progress
from rtc_server.usage.spelling import did_you_mean
from rtc_server.web.routes import NO_STORE

_EVENT_S: Final = 30.0
"""For which a client that reads no events keeps a slot."""
_KEEP_ALIVE_S: Final = 15.0
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


class ClientGone(Exception):
    """No client waits for the answer."""


def answer_to(request: web.Request) -> Answer:
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
    return Events(request) if _EVENTS in request.headers.get("Accept", "") else Document(request, form)


class Answer:
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
        """Now and then. Raises ClientGone when the client has left."""
        _see_client(self._request)
        if self._began_at is None:
            self._began_at = time.monotonic()

    async def pulse(self) -> None:
        """As often as it likes: something goes out before what stands between gives the connection up. Raises
        ClientGone."""
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
                        headers={"Content-Type": self.content_type} | NO_STORE | _NOT_BUFFERED
                    )
                    await response.prepare(self._request)
                    self._response = response
                await self._response.write(text.encode())
        except (ConnectionError, TimeoutError):
            raise ClientGone from None
        return self._response


class Document(Answer):
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
            return web.Response(text=text, content_type=_TYPES[self._form], charset="utf-8", headers=NO_STORE)
        return await self._write(text.removeprefix(_VTT_BEGINS) if self._form == "vtt" else text)

    async def fail(self, error: ServerError) -> web.StreamResponse:
        """JSON says so; other formats have no word for it, and the connection breaks off."""
        if self._response is None:
            raise error
        with contextlib.suppress(ClientGone):
            if self._form == "json":
                return await self._write(json.dumps({"error": error.as_dict()}) + "\n")
            await self._write(f"\nerror: {error.message}\n")
            if self._request.transport is not None:
                self._request.transport.close()
        return self._response


class Events(Answer):
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
        with contextlib.suppress(ClientGone):
            await self._write(_event("error", error.as_dict()))
        return self._response


def _see_client(request: web.Request) -> None:
    """Raises ClientGone: aiohttp does not end a handler whose client hangs up."""
    if request.transport is None or request.transport.is_closing():
        raise ClientGone


def _event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
