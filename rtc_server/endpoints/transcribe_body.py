"""Takes the body of a request in, within its time and size, into a temporary file without a name, which nothing in the
request leads to and which is gone with its descriptor."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from typing import IO, Final

from aiohttp import web

from rtc_server.endpoints.transcribe_answers import ClientGone
from rtc_server.errors import (
    BadRequest,
    Overloaded,
    RequestTimeout,
    TooLarge,
)
from rtc_server.web.bodies import ask_for_body

logger = logging.getLogger(__name__)

_UPLOAD_S: Final = 1800.0
_GRACE_S: Final = 10.0
_LEAST_BYTES_PER_S: Final = 8 * 1024
"""Twice the bit rate of speech in Opus: who is slower than this, after a grace, keeps a place from others."""
_WRITE_BYTES: Final = 2**20


def temporary_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise _no_room(error) from None


def _no_room(error: OSError) -> Overloaded:
    logger.error("no room for a file that is sent: %s", error.strerror)
    return Overloaded("The server has no room for the file. Try again later.")


async def receive(request: web.Request, file: IO[bytes], limit_bytes: int) -> None:
    """The body into ``file``, which is then at its beginning. Raises TooLarge, RequestTimeout, BadRequest, Overloaded.

    The length that the request names is good for refusing, not for believing.
    """
    if (request.content_length or 0) > limit_bytes:
        raise TooLarge(limit_bytes)
    await ask_for_body(request)
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
        raise ClientGone from None
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
