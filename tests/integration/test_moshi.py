"""Moshi's WebSocket, spoken by Kyutai's codec over real sockets: what its clients rely on, and what strangers send."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from lab.inputs.ogg import headers, ogg_opus, page
from lab.sound.tones import ends_in_tone
from lab.waiting import until
from rtc_server.access import credentials
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from rtc_server.endpoints import moshi as endpoint
from rtc_server.endpoints import socket_transport
from rtc_server.engine.local import LocalLink
from rtc_server.protocols.moshi import MOSHI, QUILLMAN, TRANSCRIPT, Kind
from tests.conftest import NO_GRACE, UNLIMITED, running_server, server_with
from tests.support.asr import asr_server
from tests.support.engines import Loads
from tests.support.fake_models import CountingModel, DyingModel
from tests.support.leftovers import leaves_nothing
from tests.support.moshi import moshi_client
from tests.support.pace import dropped_s
from tests.support.parrot import Parrot

BROWSER = {"Origin": "http://127.0.0.1"}


class Tone:
    def __init__(self, hz: float) -> None:
        self._at, self._hz = itertools.count(), hz

    def __call__(self, samples: int) -> FloatArray:
        at = np.array([next(self._at) for _ in range(samples)]) / MODEL_RATE_HZ
        return np.asarray(0.3 * np.sin(2 * np.pi * self._hz * at), dtype=np.float32)


def chat(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/api/chat"


def ws(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/ws"


def audio_message(pcm: FloatArray) -> bytes:
    return bytes([Kind.AUDIO]) + ogg_opus(pcm)


async def test_a_voice_comes_back(server: Server) -> None:
    """The handshake first, then Ogg from its first page on, a frame at a time, at the pitch that was sent."""
    async with leaves_nothing(server), moshi_client(chat(server), Tone(440)) as client:
        await until(lambda: ends_in_tone(client.heard, 440), "a second of the tone")
        assert client.messages[0] == b"\0"
        assert client.messages[1][:5] == b"\x01OggS"
        assert set(client.kinds()[1:]) == {Kind.AUDIO}
        assert client.most_audio_at_once <= FRAME_SAMPLES


async def test_what_the_model_writes_and_where_it_begins() -> None:
    """Pieces that are put one behind the other. A new socket is a new conversation: it counts from one again."""
    async with server_with({"dialogue": lambda: LocalLink(lambda: CountingModel(1))}) as server, leaves_nothing(server):
        for _ in range(2):
            async with moshi_client(chat(server)) as client:
                await until(lambda: len(client.text.split()) > 5, "words")
                words = [int(word) for word in client.text.split()]
                assert words == list(range(1, len(words) + 1))
            await until(lambda: server.engines["dialogue"].slots_used == 0, "the slot to be free")


async def test_the_parameters_of_known_clients_are_taken(server: Server) -> None:
    """Of the web client and of PersonaPlex: ignored, for the model samples alike for all."""
    query = (
        "?text_temperature=0.7&text_topk=25&audio_temperature=0.8&audio_topk=250&pad_mult=0&text_seed=1&audio_seed=2"
    )
    more = "&repetition_penalty_context=64&repetition_penalty=1.0&voice_prompt=../../etc/passwd&text_prompt=x"
    async with leaves_nothing(server), moshi_client(chat(server) + query + more) as client:
        await until(lambda: client.heard.size > 0, "a voice")


async def test_kinds_that_are_not_audio_are_ignored(server: Server) -> None:
    async with leaves_nothing(server), moshi_client(chat(server), Tone(440)) as client:
        for message in (b"", b"\0", b"\x02hello", b"\x03\x01", b"\x06", b"\x07\xff", b"\xff" * 100):
            await client.socket.send_bytes(message)
        await client.socket.send_str("hello")
        await until(lambda: client.heard.size > MODEL_RATE_HZ, "a voice")
        assert not client.socket.closed


@pytest.mark.parametrize(
    "message", [b"\x01garbage that is no Ogg", b"\x01" + headers() + page([b"\xff\xff"])], ids=["ogg", "opus"]
)
async def test_audio_that_is_none_ends_it_with_a_reason(server: Server, message: bytes) -> None:
    async with leaves_nothing(server), moshi_client(chat(server), quiet=True) as client:
        await client.socket.send_bytes(message)
        code, messages = await client.listened()
        assert code == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert b"Ogg stream" in messages[-1]
        assert messages[-1][0] == Kind.ERROR


async def test_a_flood_of_messages_ends_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with leaves_nothing(server), moshi_client(chat(server), quiet=True) as client:
        for _ in range(2 * endpoint._MESSAGE_BURST):
            await client.socket.send_bytes(b"\x06")
        code, messages = await client.listened()
        assert (code, messages[-1][0]) == (aiohttp.WSCloseCode.POLICY_VIOLATION, Kind.ERROR)


async def test_packets_without_end_end_it_and_hold_up_no_other(server: Server) -> None:
    """Thousands of tiny packets in each message: they cost no more than the audio of a client may."""
    tiny = page([b"\x08"] * 200)
    async with leaves_nothing(server), moshi_client(chat(server), quiet=True) as client:
        await client.socket.send_bytes(b"\x01" + headers())
        for _ in range(20):
            await client.socket.send_bytes(b"\x01" + tiny * 10)
        code, messages = await client.listened()
        assert (code, messages[-1]) == (aiohttp.WSCloseCode.POLICY_VIOLATION, b"\x05Audio comes faster than it lasts.")


async def test_a_message_that_is_too_long(server: Server) -> None:
    async with leaves_nothing(server), moshi_client(chat(server), quiet=True) as client:
        await client.socket.send_bytes(b"\x01" + bytes(endpoint.MAX_MESSAGE_BYTES + 1))
        assert (await client.listened())[0] == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_audio_that_comes_at_once_does_not_run_ahead(server: Server) -> None:
    """Twenty seconds in one go: the model hears what real time has room for, the newest of it; the rest is dropped."""
    async with leaves_nothing(server), moshi_client(chat(server), quiet=True) as client:
        listening = asyncio.create_task(client.listen())
        data = ogg_opus(Tone(440)(20 * MODEL_RATE_HZ))
        for at in range(0, len(data), 32_000):
            await client.socket.send_bytes(b"\x01" + data[at : at + 32_000])
        (session,) = server.registry
        await until(lambda: session.user_audio.microphone.dropped > 200, "frames that are dropped")
        assert session._stats.frames_in < 50
        await client.socket.close()
        await listening
    assert 16 < dropped_s(server, "moshi") < 20


@pytest.mark.slow
async def test_a_client_that_never_reads(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs what a playout buffer holds, and goes when its pings are not answered."""
    monkeypatch.setattr(socket_transport, "_HEARTBEAT_S", 0.5)
    async with leaves_nothing(server), moshi_client(chat(server), quiet=True) as client:
        assert client.socket._reader is not None
        transport = client.socket._response.connection.transport  # type: ignore[union-attr]
        transport.pause_reading()
        await until(lambda: len(server.registry) == 0, "the session to end")


async def test_a_client_that_vanishes(server: Server) -> None:
    async with leaves_nothing(server), moshi_client(chat(server), Tone(440)) as client:
        await until(lambda: client.heard.size > 0, "a voice")
        client.socket._response.connection.transport.abort()  # type: ignore[union-attr]
        await until(lambda: len(server.registry) == 0, "the session to end")


async def test_a_client_that_sends_no_audio_keeps_its_place_for_a_while() -> None:
    async with (
        running_server("--model", "echo", "--connect-timeout-s", "1") as server,
        leaves_nothing(server),
        moshi_client(chat(server), quiet=True) as client,
    ):
        assert (await client.listened())[0] == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_few_clients_that_send_no_audio_are_let_in_from_one_address() -> None:
    """So that strangers take no slots by opening sockets."""
    async with (
        running_server("--model", "echo", "--connecting-per-address", "2") as server,
        leaves_nothing(server),
        moshi_client(chat(server), quiet=True),
        moshi_client(chat(server), quiet=True),
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with moshi_client(chat(server)):
                pass
        assert refused.value.status == 429


async def test_a_request_that_is_no_websocket(base_url: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{base_url}/api/chat") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, "bad_request")


async def test_a_full_server_says_so_before_and_after_the_upgrade() -> None:
    """As HTTP to programs; to browsers, which show a page nothing of that, in the protocol's own words."""
    async with running_server("--model", "echo", "--echo-slots", "1") as server, moshi_client(chat(server)):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with moshi_client(chat(server)):
                pass
        assert refused.value.status == 503
        origin = {"Origin": f"http://127.0.0.1:{server.port}"}
        async with moshi_client(chat(server), headers=origin, quiet=True) as client:
            code, messages = await client.listened()
            assert code == aiohttp.WSCloseCode.TRY_AGAIN_LATER
            assert [message[0] for message in messages] == [Kind.ERROR]


async def test_a_key(tmp_path: Path) -> None:
    key, path = credentials.new_key(), tmp_path / "auth.toml"
    path.write_text(f'[[keys]]\nname = "page"\nhash = "{credentials.hash_of(key)}"\n')
    async with running_server("--model", "echo", "--auth", str(path)) as server:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with moshi_client(chat(server)):
                pass
        assert refused.value.status == 401
        for url, headers in (
            (f"{chat(server)}?auth_id={key}", None),
            (chat(server), {"Authorization": f"Bearer {key}"}),
            (chat(server), {"kyutai-api-key": key}),
        ):
            async with moshi_client(url, headers=headers) as client:
                await until(lambda: bool(client.messages), "the handshake")


async def test_a_server_that_stops_says_goodbye() -> None:
    async with running_server("--model", "echo") as server, moshi_client(chat(server), Tone(440)) as client:
        await until(lambda: client.heard.size > 0, "a voice")
        stopping = asyncio.create_task(server.stop(0.0))
        await until(lambda: client.socket.closed, "the close")
        assert client.socket.close_code == aiohttp.WSCloseCode.GOING_AWAY
        assert client.kinds()[-1] == Kind.ERROR
        await stopping


async def test_an_engine_that_dies_ends_it_with_a_reason() -> None:
    async with (
        server_with({"dialogue": lambda: LocalLink(lambda: DyingModel(1))}, *NO_GRACE) as server,
        moshi_client(chat(server)) as client,
    ):
        await until(lambda: client.socket.closed, "the close")
        assert client.socket.close_code == aiohttp.WSCloseCode.INTERNAL_ERROR
        assert client.kinds()[-1] == Kind.ERROR


async def test_a_socket_stays_open_when_another_engine_takes_the_place_of_one_that_died() -> None:
    """Its client is told in a sentence, and hears the other without another handshake."""
    loads = Loads(lambda: DyingModel(1), lambda: CountingModel(1))
    async with (
        server_with({"dialogue": lambda: LocalLink(loads)}) as server,
        leaves_nothing(server),
        moshi_client(chat(server), Tone(440)) as client,
    ):
        await until(lambda: Kind.ERROR in client.kinds(), "a sentence")
        await until(lambda: client.text.count(" 12 ") == 1, "words of the other")
        assert client.kinds().count(Kind.HANDSHAKE) == 1
        assert not client.socket.closed


async def test_there_is_no_ws_unless_it_is_asked_for(base_url: str) -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"{base_url}/ws")
        assert refused.value.status == 404


async def test_quillmans_dialect() -> None:
    """Bare Ogg in, voice and text with their first byte out, and no handshake."""
    async with (
        running_server("--model", "echo", "--ws", "quillman") as server,
        leaves_nothing(server),
        moshi_client(ws(server), Tone(440), QUILLMAN) as client,
    ):
        await until(lambda: ends_in_tone(client.heard, 440), "a second of the tone")
        assert set(client.kinds()) == {Kind.AUDIO}


async def test_the_dialect_of_transcripts() -> None:
    """Bare Ogg in, words out, under the number that audio has elsewhere."""
    async with asr_server(Parrot, None, "--ws", "transcript", *UNLIMITED) as server:
        async with moshi_client(ws(server), Tone(440), TRANSCRIPT) as client:
            await until(lambda: len(client.text.split()) > 2, "words")
            assert set(client.kinds()) == {1}
        await until(lambda: server.engines["transcribe"].slots_used == 0, "the slot to be free")


def test_the_dialects_differ_as_their_clients_do() -> None:
    assert (MOSHI.handshake, QUILLMAN.handshake, TRANSCRIPT.handshake) == (True, False, False)
    assert (MOSHI.tagged, QUILLMAN.tagged, TRANSCRIPT.tagged) == (True, False, False)
