"""What a client of speech-to-text does wrong costs it alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from lab.inputs.ogg import headers as ogg_headers
from lab.inputs.ogg import page
from rtc_server import audio
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES
from rtc_server.endpoints.asr_socket import SocketLimits
from rtc_server.protocols import asr
from tests.support.asr import (
    AsrClosed,
    asr_client,
    asr_server,
    packed_audio,
)
from tests.support.asr_words import transcribed
from tests.support.parrot import Parrot, numbered


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with asr_server(lambda: Parrot(slots=2, heads=4)) as running_server:
        yield running_server


async def test_text_messages_are_ignored(server: Server) -> None:
    async with asr_client(server) as client:
        await client.socket.send_str('{"type": "Audio"}')
        await client.socket.send_str("\x00")
        assert await transcribed(client, numbered(1)) == ["1"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        b'{"type": "Init"}',
        packed_audio([0.5])[:-1],
        asr.encode_server_message(asr.Ready()),
        bytes(asr.MAX_MESSAGE_BYTES + 1),
        asr.encode_client_message(asr.Audio(audio.silence(asr.MAX_SAMPLES + 1))),
        asr.encode_client_message(asr.OggOpus(b"RIFF")),
        asr.encode_client_message(asr.OggOpus(ogg_headers() + page([b"\xff\xff\xff"]))),
    ],
    ids=lambda raw: f"{raw[:20].hex()}-{len(raw)}",
)
async def test_what_is_no_message_ends_the_stream_with_an_error(server: Server, raw: bytes) -> None:
    async with asr_client(server) as client, asr_client(server) as neighbour:
        await client.until("Ready")
        await client.socket.send_bytes(raw)
        assert (await client.until("Error"))["message"]
        with pytest.raises(AsrClosed):
            await client.next()
        assert await transcribed(neighbour, numbered(2)) == ["1", "2"]
    assert server.engines["transcribe"].ready


async def test_a_message_far_too_large_is_not_even_read(server: Server) -> None:
    async with asr_client(server) as client:
        await client.until("Ready")
        with contextlib.suppress(ConnectionError):
            await client.socket.send_bytes(bytes(20_000_000))
        with pytest.raises(AsrClosed) as closed:
            await client.next()
        assert closed.value.code in (1009, 1006)


async def test_what_was_said_comes_before_the_error(server: Server) -> None:
    async with asr_client(server) as client:
        assert await transcribed(client, numbered(3)) == ["1", "2", "3"]
        await client.socket.send_bytes(b"\xc1")
        await client.to_the_end()
        assert client.messages[-1]["type"] == "Error"


async def test_samples_that_are_no_numbers_are_silence(server: Server) -> None:
    """The :class:`Parrot` asserts that what it hears is finite."""
    async with asr_client(server) as client:
        for value in (float("nan"), float("inf"), float("-inf"), 1e30):
            await client.send_audio([0.0, *[value] * (FRAME_SAMPLES - 1)])
        assert await transcribed(client, numbered(2)) == ["1", "2"]


async def test_markers_without_audio_have_an_end(server: Server) -> None:
    server.asr_sockets.limits = SocketLimits(markers=10)
    async with asr_client(server) as client:
        for number in range(11):
            await client.send({"type": "Marker", "id": number})
        await client.until("Error")
