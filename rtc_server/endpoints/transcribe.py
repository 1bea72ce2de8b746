"""The door for files: ``POST`` or ``PUT /api/transcribe``. Takes a body in, hands it on, tells what was heard.

Owns which files are under way, and how many may be. No media logic.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import IO, Final

from aiohttp import web

from rtc_server.access.principals import Visitor
from rtc_server.config import Settings
from rtc_server.decoding.reader import Decoders
from rtc_server.decoding.wire import Limits
from rtc_server.endpoints.transcribe_answers import Answer, ClientGone, answer_to
from rtc_server.endpoints.transcribe_body import receive, temporary_file
from rtc_server.engine.engine import Engine
from rtc_server.errors import (
    EngineUnavailable,
    Overloaded,
    ServerError,
    ServerFull,
    TimeLimit,
)
from rtc_server.services import TRANSCRIBE
from rtc_server.sessions.admission import Admission
from rtc_server.transcription.captions import Transcript
from rtc_server.transcription.file import Progress, transcribe
from rtc_server.web.gate import visitor_of
from rtc_server.web.routes import Policy, Routes

logger = logging.getLogger(__name__)

_LOOK_S: Final = 1.0
"""Between two looks at whether the client is still there."""
_CLIENT_GONE: Final = 499
"""Never sent."""


class Place:
    """What one file has been promised. ``limit_s``: for which it may last, by the clock and in audio."""

    def __init__(self, engine: Engine, limit_s: float, waiting: set[Place]) -> None:
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


# As curl -T sends a file, which puts its name behind a URL that ends in a slash.
@routes.add("PUT", "/api/transcribe/{name:[^/]*}", _FILE)
@routes.add("PUT", "/api/transcribe", _FILE)
@routes.add("POST", "/api/transcribe", _FILE)
async def transcribe_file(request: web.Request) -> web.StreamResponse:
    uploads = request.app[UPLOADS]
    answer = answer_to(request)
    started = time.monotonic()
    try:
        async with uploads.admit(visitor_of(request)) as place:
            with temporary_file() as file:
                await receive(request, file, uploads.settings.max_upload_mb * 1_000_000)
                transcript = await _transcribed(uploads, place, file, answer)
        response = await answer.end(transcript)
    except ServerError as error:
        return await answer.fail(error)
    except ClientGone:
        logger.info("a file was given up: its client has gone")
        return web.Response(status=_CLIENT_GONE)
    audio_s, took_s = transcript.duration_ms / 1000, time.monotonic() - started
    logger.info("transcribed a file: %.1f s of audio, %d words, in %.1f s", audio_s, len(transcript.words), took_s)
    return response


async def _transcribed(uploads: Uploads, place: Place, file: IO[bytes], answer: Answer) -> Transcript:
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
