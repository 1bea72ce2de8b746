"""A client for programs: sends audio to ``/api/asr-streaming``, of this or Kyutai's server, and receives words.

Owns the order of what is sent (silence, audio, a marker, silence until it comes back), and when a word has its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from dataclasses import dataclass
from typing import Final

import aiohttp

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.client.microphone import MICROPHONE_HZ, Microphone
from rtc_server.errors import BadMessage
from rtc_server.protocols import asr

ASR_PATH: Final = "/api/asr-streaming"
_LEAD_IN_S: Final = 1.0
"""Of silence before the audio, which Kyutai's larger model needs to hear the first word; it is not in the times."""
_LEAD_OUT_S: Final = 1.0
"""Of silence before the marker, after which the last word is surely there."""
_FLUSH_S: Final = 40
"""Of silence after the marker, at most: no model is that late."""
_FLUSH_PAUSE_S: Final = 0.1
_HEARTBEAT_S: Final = 20.0
_CLOSE_S: Final = 1.0
_MARKER: Final = 0

Blocks = AsyncIterable[FloatArray] | Iterable[FloatArray]


@dataclass(frozen=True, slots=True)
class Word:
    """A word, with its times in the audio in seconds. ``end_s``: None where the model has not told it in time."""

    text: str
    start_s: float
    end_s: float | None


class TranscriptionFailed(Exception):
    """The server said no, or went away; ``status`` is that of HTTP where it was not even a WebSocket."""

    def __init__(self, message: str, status: int | None = None) -> None:
        self.message, self.status = message, status
        super().__init__(message)


async def transcribe(
    url: str, source: Blocks | Microphone, token: str | None = None, patience_s: float = 0.5
) -> AsyncGenerator[Word, None]:
    """The words of ``source``, each as soon as its end is known, or ``patience_s`` after it came.

    ``url``: of the server (``http``, ``https``, ``ws`` or ``wss``). ``source``: blocks of mono float32 at 24 kHz, sent
    as fast as they come and the server takes them; or a :data:`Microphone` (at 48 kHz), asked 80 ms at a time at the
    pace of real time, until the caller has heard enough. ``token``: a key or token for a server that wants one.

    Raises TranscriptionFailed, and what ``source`` raises. Close it (``contextlib.aclosing``) when leaving early.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        await _connect(http, url.rstrip("/") + ASR_PATH) as socket,
    ):
        conversation = _Conversation(socket)
        sending = asyncio.create_task(conversation.send(source), name="transcribe-send")
        try:
            async with contextlib.aclosing(conversation.words(patience_s)) as words:
                async for word in words:
                    yield word
        except TranscriptionFailed:
            if conversation.source_error is not None:  # all else followed from that
                raise conversation.source_error from None
            raise
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _connect(http: aiohttp.ClientSession, url: str) -> aiohttp.ClientWebSocketResponse:
    timeout = aiohttp.ClientWSTimeout(ws_close=_CLOSE_S)
    try:
        return await http.ws_connect(url, heartbeat=_HEARTBEAT_S, timeout=timeout)
    except aiohttp.WSServerHandshakeError as error:
        raise TranscriptionFailed(f"The server refuses ({error.status}).", error.status) from None
    except aiohttp.ClientError as error:
        raise TranscriptionFailed("The server cannot be reached.") from error


class _Conversation:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._finished = asyncio.Event()
        self._audio_samples = 0
        self.source_error: Exception | None = None

    async def send(self, source: Blocks | Microphone) -> None:
        try:
            await self._send_all(source)
        except ConnectionError:
            pass  # the receiver learns why
        except Exception as error:  # what a source raises goes to its owner
            self.source_error = error
            await self._socket.close()

    async def _send_all(self, source: Blocks | Microphone) -> None:
        await self._silence(_LEAD_IN_S)
        async with contextlib.aclosing(_blocks(source)) as blocks:
            async for block in blocks:
                self._audio_samples += block.size
                for start in range(0, block.size, asr.MAX_SAMPLES):
                    await self._send(asr.Audio(block[start : start + asr.MAX_SAMPLES]))
        await self._silence(_LEAD_OUT_S)
        await self._send(asr.Marker(_MARKER))
        for _ in range(_FLUSH_S):
            await self._silence(1.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_PAUSE_S):
                    await self._finished.wait()
            if self._finished.is_set():
                return

    async def _silence(self, seconds: float) -> None:
        await self._send(asr.Audio(audio.silence(audio.ms_to_samples(seconds * 1000))))

    async def _send(self, message: asr.ClientMessage) -> None:
        await self._socket.send_bytes(asr.encode_client_message(message))

    async def words(self, patience_s: float) -> AsyncGenerator[Word, None]:
        """Until the marker is back. Raises TranscriptionFailed."""
        try:
            pending: asr.Word | None = None
            give_up_at = 0.0
            while True:
                message = await self._next(None if pending is None else give_up_at - time.monotonic())
                ends, end_s = self._end_told_by(message)
                late = pending is not None and time.monotonic() >= give_up_at
                if pending is not None and (ends or late):
                    yield _closed(pending, end_s)
                    pending = None
                match message:
                    case asr.Word():
                        pending, give_up_at = message, time.monotonic() + patience_s
                    case asr.Error(text):
                        raise TranscriptionFailed(text)
                    case asr.Marker(marker) if marker == _MARKER:
                        return
        finally:
            self._finished.set()

    def _end_told_by(self, message: asr.ServerMessage | None) -> tuple[bool, float | None]:
        """Whether a word cannot be waited for after ``message``, and where it ended, if that is known."""
        match message:
            case asr.EndWord(stop_time):
                return True, _own_time(stop_time)
            case asr.Word(_, start_time):
                return True, _own_time(start_time)
            case asr.Marker(marker) if marker == _MARKER:
                return True, audio.samples_to_ms(self._audio_samples) / 1000
            case asr.Error():
                return True, None
            case _:
                return False, None

    async def _next(self, wait_s: float | None) -> asr.ServerMessage | None:
        """None if nothing came in so long. Raises TranscriptionFailed."""
        try:
            async with asyncio.timeout(wait_s):
                message = await self._socket.receive()
        except TimeoutError:
            return None
        if message.type is not aiohttp.WSMsgType.BINARY:
            raise TranscriptionFailed("The connection ended before the last word.")
        try:
            return asr.parse_server_message(message.data)
        except BadMessage:
            raise TranscriptionFailed("The server speaks another protocol.") from None


def _closed(word: asr.Word, end_s: float | None) -> Word:
    start_s = _own_time(word.start_time)
    return Word(word.text, start_s, None if end_s is None else max(start_s, end_s))


def _own_time(stream_s: float) -> float:
    return max(0.0, stream_s - _LEAD_IN_S)


async def _blocks(source: Blocks | Microphone) -> AsyncGenerator[FloatArray, None]:
    if isinstance(source, AsyncIterable):
        async for block in source:
            yield block
    elif isinstance(source, Iterable):
        for block in source:
            yield block
    else:
        started_at, sent_s = time.monotonic(), 0.0
        resampler = audio.Resampler(MICROPHONE_HZ, audio.MODEL_RATE_HZ)
        while True:
            await asyncio.sleep(max(0.0, started_at + sent_s - time.monotonic()))
            yield resampler.process(source(MICROPHONE_HZ * audio.FRAME_MS // 1000))
            sent_s += audio.FRAME_MS / 1000
