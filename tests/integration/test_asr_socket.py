"""Clients of Kyutai's speech-to-text server find here what they know; what a client does wrong costs it alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket as sockets
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import WSCloseCode

from lab.inputs.ogg import headers as ogg_headers
from lab.inputs.ogg import ogg_opus, page
from lab.waiting import until
from rtc_server import audio
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from rtc_server.config import parse
from rtc_server.endpoints.asr_socket import SocketLimits
from rtc_server.engine.model import BoolArray, RowOutput
from rtc_server.protocols import asr
from tests.conftest import UNLIMITED
from tests.support.asr import (
    AsrClosed,
    AsrSocketClient,
    asr_client,
    asr_server,
    asr_tasks,
    asr_url,
    kyutai_file_script,
    noise,
    packed,
    packed_audio,
    running,
)
from tests.support.parrot import BREAK, DELAY_FRAMES, Parrot, numbered

FRAME_S = audio.FRAME_MS / 1000


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with asr_server(lambda: Parrot(slots=2, heads=4)) as running_server:
        yield running_server


def broken_frame() -> FloatArray:
    return np.full(FRAME_SAMPLES, BREAK, dtype=np.float32)


def metric(server: Server, name: str) -> float | None:
    return server.metrics.registry.get_sample_value(name)


async def transcribed(client: AsrSocketClient, pcm: FloatArray) -> list[str]:
    """All words of ``pcm``. The silence before the marker completes the last one."""
    await client.send_audio(np.concatenate((pcm, audio.silence(FRAME_SAMPLES))))
    await client.send({"type": "Marker", "id": 99})
    await client.send_audio(audio.silence((DELAY_FRAMES + 1) * FRAME_SAMPLES))
    await client.until("Marker", id=99)
    return client.words


# The protocol


async def test_it_begins_with_ready_and_tells_each_step(server: Server) -> None:
    async with asr_client(server) as client:
        assert await client.next() == {"type": "Ready"}
        await client.send_audio(numbered(3))
        await client.until("Step", step_idx=3)
        steps = client.of("Step")
        assert [step["step_idx"] for step in steps] == [1, 2, 3]
        assert steps[0]["prs"] == [0.125, 0.25, 0.375, 0.5]
        assert [step["buffered_pcm"] for step in steps] == [2 * FRAME_SAMPLES, FRAME_SAMPLES, 0]
        assert set(steps[0]) == {"type", "step_idx", "prs", "buffered_pcm"}


async def test_a_model_without_pause_heads_tells_no_steps() -> None:
    async with asr_server(Parrot) as server, asr_client(server) as client:
        assert await transcribed(client, numbered(3)) == ["1", "2", "3"]
        assert client.of("Step") == []


async def test_words_have_their_times_in_the_audio_and_their_ends(server: Server) -> None:
    """The end is where the model draws a border: here at frame 2, which says nothing."""
    async with asr_client(server) as client:
        await transcribed(client, np.concatenate((numbered(2), audio.silence(2 * FRAME_SAMPLES), numbered(1, first=7))))
        told = [message for message in client.messages if message["type"] in ("Word", "EndWord")]
        assert [message["type"] for message in told] == ["Word", "Word", "EndWord", "Word", "EndWord"]
        assert [message["text"] for message in client.of("Word")] == ["1", "2", "7"]
        assert [message["start_time"] for message in client.of("Word")] == pytest.approx([0.0, FRAME_S, 4 * FRAME_S])
        # A boundary is written one frame after the last word, and the model knows of no border before.
        assert [message["stop_time"] for message in client.of("EndWord")] == pytest.approx([3 * FRAME_S, 6 * FRAME_S])
        assert client.messages.index(told[0]) > client.messages.index(client.of("Step")[0])


async def test_in_a_step_the_step_comes_first_then_words_then_markers(server: Server) -> None:
    async with asr_client(server) as client:
        await client.send_audio(numbered(1))
        await client.send({"type": "Marker", "id": 5})
        await client.send_audio(audio.silence((DELAY_FRAMES + 1) * FRAME_SAMPLES))
        await client.until("EndWord")
        kinds = [(message["type"], message.get("step_idx")) for message in client.messages]
        at = kinds.index(("Marker", None))
        assert kinds[at - 1] == ("Step", 1 + DELAY_FRAMES)
        # The word is written with that step, and complete with the next.
        assert kinds[at + 1 :] == [("Step", 2 + DELAY_FRAMES), ("Word", None), ("EndWord", None)]


async def test_markers_wait_for_the_audio_before_them_and_the_delay(server: Server) -> None:
    async with asr_client(server) as client:
        for number in range(1, 4):
            await client.send_audio(numbered(2))
            await client.send({"type": "Marker", "id": -number})
        await client.send_audio(audio.silence(10 * FRAME_SAMPLES))
        await client.until("Step", step_idx=16)
        seen_at = [client.messages.index(marker) for marker in client.of("Marker")]
        assert [client.messages[at]["id"] for at in seen_at] == [-1, -2, -3]
        steps_before = [sum(m["type"] == "Step" for m in client.messages[:at]) for at in seen_at]
        assert steps_before == [2 + DELAY_FRAMES, 4 + DELAY_FRAMES, 6 + DELAY_FRAMES]


async def test_a_marker_before_any_audio_comes_back_after_the_delay(server: Server) -> None:
    async with asr_client(server) as client:
        await client.send({"type": "Marker", "id": 2**63 - 1})
        await client.send_audio(numbered(DELAY_FRAMES))
        await client.until("Marker", id=2**63 - 1)
        assert len(client.of("Step")) == DELAY_FRAMES


async def test_init_is_answered_and_changes_nothing(server: Server) -> None:
    async with asr_client(server) as client:
        await client.until("Ready")
        await client.send({"type": "Init"})
        await client.until("Ready")
        assert await transcribed(client, numbered(2)) == ["1", "2"]


async def test_audio_comes_in_blocks_of_any_size(server: Server) -> None:
    pcm = numbered(50)
    for block in (100, 1920, 7001):
        async with asr_client(server) as client:
            for start in range(0, pcm.size, block):
                await client.send_audio(pcm[start : start + block])
            assert await transcribed(client, audio.silence(0)) == [str(n) for n in range(1, 51)]


async def test_whole_numbers_are_audio(server: Server) -> None:
    """The silence of Kyutai's scripts may be an array of zeroes without a point."""
    async with asr_client(server) as client:
        await client.send({"type": "Audio", "pcm": [0] * FRAME_SAMPLES})
        assert await transcribed(client, numbered(1)) == ["1"]


async def test_ogg_opus_is_audio(server: Server) -> None:
    data = ogg_opus(0.01 * noise(2.0, seed=1))
    async with asr_client(server) as client:
        for start in range(0, len(data), 333):
            await client.send({"type": "OggOpus", "data": data[start : start + 333]})
        await client.send({"type": "Marker", "id": 1})
        await client.send({"type": "OggOpus", "data": list(ogg_opus(audio.silence(10 * FRAME_SAMPLES)))})
        await client.until("Marker")
        assert len(client.of("Step")) == 25 + DELAY_FRAMES


async def test_the_file_script_of_kyutai_works(server: Server) -> None:
    # The second of silence that it begins with is twelve frames and a half.
    transcript = await kyutai_file_script(server, np.concatenate((audio.silence(FRAME_SAMPLES // 2), numbered(100))))
    assert [word["text"] for word in transcript] == [str(n) for n in range(1, 101)]
    starts = [word["timestamp"][0] for word in transcript]
    assert starts == pytest.approx([1.0 + n * FRAME_S for n in range(100)], abs=FRAME_S)
    assert transcript[-1]["timestamp"][1] == pytest.approx(1.0 + 101 * FRAME_S, abs=FRAME_S)


async def test_streams_one_after_the_other_begin_anew(server: Server) -> None:
    """Times, numbers of steps and what was said: nothing is left of the stream before in the same slot."""
    for _ in range(3):
        async with asr_client(server) as client:
            assert await transcribed(client, numbered(2)) == ["1", "2"]
            assert client.of("Word")[0]["start_time"] == 0.0
            assert client.of("Step")[0]["step_idx"] == 1


async def test_sockets_and_words_are_counted(server: Server) -> None:
    async with asr_client(server) as client:
        await transcribed(client, numbered(3))
        assert metric(server, "rtc_asr_sockets") == 1
        assert metric(server, "rtc_asr_words_total") == 3
    await until(lambda: metric(server, "rtc_asr_sockets") == 0)


# Who may come in


async def test_a_server_without_the_service_says_so_before_the_upgrade(base_url: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{base_url}/api/asr-streaming") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "unknown_service"


@pytest.fixture
async def base_url() -> AsyncIterator[str]:
    server = Server(parse(["--port", "0", "--model", "echo"], environment={}))
    await server.start()
    await server.wait_ready()
    yield f"http://127.0.0.1:{server.port}"
    await server.stop(0.0)


async def test_what_is_no_websocket_is_told_so(server: Server) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(asr_url(server)) as response:
            assert response.status == 400
            assert (await response.json())["error"]["code"] == "bad_request"
        async with http.post(asr_url(server), data=b"audio") as response:
            assert response.status == 405
    assert len(server.asr_sockets) == 0


async def test_when_all_slots_are_taken_it_says_so_and_closes(server: Server) -> None:
    async with asr_client(server) as one, asr_client(server) as two:
        await one.until("Ready")
        await two.until("Ready")
        async with asr_client(server) as three:
            assert await three.next() == {
                "type": "Error",
                "message": "Every slot is taken. Try again in a few seconds.",
                "code": "server_full",
            }
            with pytest.raises(AsrClosed) as closed:
                await three.next()
            assert closed.value.code == WSCloseCode.TRY_AGAIN_LATER
        assert await transcribed(one, numbered(1)) == ["1"]
    await until(lambda: server.engines["transcribe"].slots_used == 0)
    async with asr_client(server) as client:
        await client.until("Ready")


async def test_an_engine_that_is_not_ready_is_told() -> None:
    async with asr_server(Parrot) as server:
        await server.engines["transcribe"].close()
        async with asr_client(server) as client:
            assert (await client.next())["type"] == "Error"
            with pytest.raises(AsrClosed):
                await client.next()


async def test_a_server_that_drains_lets_nobody_in(server: Server) -> None:
    server.admission.draining = True
    async with asr_client(server) as client:
        assert "shutting down" in (await client.until("Error"))["message"]
        with pytest.raises(AsrClosed):
            await client.next()


# What clients do wrong


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


@pytest.mark.parametrize("says", [None, {"type": "Init"}, {"type": "Audio", "pcm": []}, {"type": "Marker", "id": 1}])
async def test_one_without_audio_is_sent_away(server: Server, says: dict[str, Any] | None) -> None:
    """It holds a place that others want. What it says instead, again and again, does not count."""
    server.asr_sockets.limits = SocketLimits(first_audio_s=0.4)

    async def chatter(client: AsrSocketClient) -> None:
        with contextlib.suppress(ConnectionError):
            while says is not None:
                await client.send(says)
                await asyncio.sleep(0.05)

    async with asr_client(server) as client:
        talking = asyncio.create_task(chatter(client), name="chatter")
        error = await client.until("Error")
        assert (error["code"], error["message"]) == ("request_timeout", "No audio came for 0.4 s.")
        with pytest.raises(AsrClosed) as closed:
            await client.next()
        assert closed.value.code == WSCloseCode.POLICY_VIOLATION
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)


async def test_audio_that_waits_to_be_heard_is_no_silence() -> None:
    """The model takes longer than a client may be quiet."""
    limits = SocketLimits(idle_s=0.5, ping_s=5.0)
    async with asr_server(lambda: Parrot(heads=1, step_s=0.02), limits) as server, asr_client(server) as client:
        await client.send_audio(numbered(60))
        await client.until("Step", step_idx=60)
        assert "0.5 s" in (await client.until("Error"))["message"]


async def test_who_sends_nothing_is_sent_away(server: Server) -> None:
    server.asr_sockets.limits = SocketLimits(idle_s=0.4, ping_s=0.3)
    async with asr_client(server) as client:
        await client.until("Ready")
        started_at = time.monotonic()
        assert "0.4 s" in (await client.until("Error"))["message"]
        assert time.monotonic() - started_at > 0.2


async def test_text_does_not_count_as_something(server: Server) -> None:
    server.asr_sockets.limits = SocketLimits(idle_s=0.4, ping_s=0.3)

    async def chatter(client: AsrSocketClient) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await client.socket.send_str("still here")
                await client.socket.ping()
                await asyncio.sleep(0.02)

    async with asr_client(server) as client:
        talking = asyncio.create_task(chatter(client), name="chatter")
        await client.until("Error")
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)


async def test_who_answers_pings_and_sends_now_and_then_stays(server: Server) -> None:
    """Quiet for longer than pings may go unanswered, and all in all longer than nothing valid may come."""
    server.asr_sockets.limits = SocketLimits(idle_s=2.5, ping_s=0.5)
    async with asr_client(server) as client:
        reading = asyncio.create_task(client.until("Marker"), name="reading")  # and answering
        for _ in range(2):
            await client.send_audio(numbered(1))
            await asyncio.sleep(1.5)
        await client.send({"type": "Marker", "id": 1})
        await client.send_audio(audio.silence(10 * FRAME_SAMPLES))
        await reading
        assert not client.of("Error")


async def test_who_does_not_answer_pings_is_gone(server: Server) -> None:
    server.asr_sockets.limits = SocketLimits(ping_s=0.1, close_s=0.1)
    async with asr_client(server, autoping=False) as client:
        await client.until("Ready")
        await until(lambda: len(server.asr_sockets) == 0)
        assert server.engines["transcribe"].slots_used == 0


async def test_pings_of_clients_are_answered(server: Server) -> None:
    async with asr_client(server, autoping=False) as client:
        await client.until("Ready")
        await client.socket.ping(b"hello")
        message = await client.socket.receive(20)
        assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PONG, b"hello")


# Many at once, faster and slower than real time


async def test_sixteen_streams_at_once_have_each_its_own_words() -> None:
    async def stream(server: Server, number: int) -> None:
        pcm = numbered(25, first=1 + 25 * number)
        async with asr_client(server) as client:
            for start in range(0, pcm.size, 1000 + 100 * number):
                await client.send_audio(pcm[start : start + 1000 + 100 * number])
            assert await transcribed(client, audio.silence(0)) == [str(25 * number + n) for n in range(1, 26)]
            assert client.of("Word")[0]["start_time"] == 0.0

    async with asr_server(lambda: Parrot(slots=16, heads=4, step_s=0.002)) as server, asyncio.TaskGroup() as group:
        for number in range(16):
            group.create_task(stream(server, number))


async def test_far_faster_than_the_model_is_held_back() -> None:
    """Half a minute of audio at once for a model that takes 5 ms a frame: nothing is lost, and little is kept."""
    limits = SocketLimits(buffered_s=2.0)
    frames = 400
    async with asr_server(lambda: Parrot(heads=1, step_s=0.005), limits) as server, asr_client(server) as client:
        tail = audio.silence(10 * FRAME_SAMPLES)

        async def pour() -> None:
            pcm = np.concatenate((numbered(frames), audio.silence(FRAME_SAMPLES)))
            for start in range(0, pcm.size, FRAME_SAMPLES):
                await client.send_audio(pcm[start : start + FRAME_SAMPLES])
            await client.send({"type": "Marker", "id": 0})
            await client.send_audio(tail)

        pouring = asyncio.create_task(pour(), name="pour")
        await client.until("Marker")
        await pouring
        assert client.words == [str(n) for n in range(1, frames + 1)]
        assert max(step["buffered_pcm"] for step in client.of("Step")) <= limits.buffered_s * MODEL_RATE_HZ + tail.size


class Waiting(Parrot):
    """Makes its first steps only when it is let."""

    def __init__(self, go: threading.Event) -> None:
        super().__init__(heads=1)
        self._go = go

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        self._go.wait(20)
        return super().step(pcm, active)


async def test_a_client_far_ahead_of_the_model_is_answered_its_pings() -> None:
    """Five minutes of audio at once, for a model that has heard next to nothing of it; then all words come."""
    go = threading.Event()
    pcm = np.concatenate([*[numbered(400)] * 9, numbered(150)])
    assert pcm.size == 300 * MODEL_RATE_HZ
    async with asr_server(lambda: Waiting(go)) as server, asr_client(server, autoping=False) as client:
        for start in range(0, pcm.size, asr.MAX_SAMPLES):
            await client.socket.send_bytes(asr.encode_client_message(asr.Audio(pcm[start : start + asr.MAX_SAMPLES])))
        await client.socket.ping(b"still there?")
        await client.until("Ready")
        message = await client.socket.receive(20)
        assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PONG, b"still there?")
        go.set()
        words = await transcribed(client, audio.silence(0))
        assert words == [str(n) for numbers in [400] * 9 + [150] for n in range(1, numbers + 1)]
        assert client.of("Step")[0]["buffered_pcm"] > 290 * MODEL_RATE_HZ, "the model had not heard it"


async def test_all_clients_together_are_so_far_ahead_and_no_further() -> None:
    """One that is far ahead is held back for the others; each has some room of its own."""
    limits = SocketLimits(buffered_s=20.0, all_buffered_s=10.0, own_buffered_s=2.0)
    async with asr_server(lambda: Parrot(slots=2, heads=1, step_s=0.002), limits) as server:

        async def pour(client: AsrSocketClient) -> None:
            for start in range(0, frames * FRAME_SAMPLES, FRAME_SAMPLES):
                await client.send_audio(pcm[start : start + FRAME_SAMPLES])
            await transcribed(client, audio.silence(0))

        frames = 300
        pcm = numbered(frames)
        async with asr_client(server) as one, asr_client(server) as other, asyncio.TaskGroup() as group:
            for client in (one, other):
                group.create_task(pour(client))
        most = [max(step["buffered_pcm"] for step in client.of("Step")) / MODEL_RATE_HZ for client in (one, other)]
        assert max(most) <= limits.all_buffered_s + 1.0
        assert all(len(client.words) == frames for client in (one, other))


async def test_far_slower_than_real_time_is_heard(server: Server) -> None:
    async with asr_client(server) as client:
        pcm = numbered(3)
        for start in range(0, pcm.size, FRAME_SAMPLES // 2):
            await client.send_audio(pcm[start : start + FRAME_SAMPLES // 2])
            await asyncio.sleep(0.1)
        assert await transcribed(client, audio.silence(0)) == ["1", "2", "3"]


async def test_a_client_that_sends_and_does_not_read_fills_no_memory(server: Server) -> None:
    """It is cut off once what it ought to read is more than a bounded queue."""
    server.asr_sockets.limits = SocketLimits(outgoing=50, close_s=0.2, first_audio_s=60.0)
    async with asr_client(server) as neighbour:
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(flood(server.port, packed({"type": "Init"})), 60)
        await until(lambda: len(server.asr_sockets) == 1)
        assert await transcribed(neighbour, numbered(2)) == ["1", "2"]


async def flood(port: int, message: bytes) -> None:
    """A WebSocket by hand that sends ``message`` (short) for ever, and reads nothing."""
    request = (
        "GET /api/asr-streaming HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    frame = b"\x82" + bytes([0x80 | len(message)]) + bytes(4) + message
    loop = asyncio.get_running_loop()
    with sockets.socket() as raw:
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await loop.sock_connect(raw, ("127.0.0.1", port))
        await loop.sock_sendall(raw, request.encode())
        while True:
            await loop.sock_sendall(raw, 20 * frame)
            await asyncio.sleep(0)


# Ends


@pytest.mark.parametrize("manner", ["close", "abort"])
async def test_a_client_that_leaves_in_the_middle_of_a_word_leaves_nothing(server: Server, manner: str) -> None:
    engine = server.engines["transcribe"]
    for _ in range(5):
        async with asr_client(server) as client:
            await client.send_audio(numbered(DELAY_FRAMES + 1))
            await client.until("Step", step_idx=DELAY_FRAMES + 1)
            assert engine.slots_used == 1
            if manner == "abort":
                transport = client.socket._conn.transport if client.socket._conn else None
                assert transport is not None
                transport.abort()
        await until(lambda: engine.slots_used == 0 and len(server.asr_sockets) == 0)
        await until(lambda: not asr_tasks())


async def test_a_client_that_leaves_while_it_is_held_back_leaves_nothing() -> None:
    async with asr_server(lambda: Parrot(step_s=0.002), SocketLimits(buffered_s=1.0)) as server:
        async with asr_client(server) as client:
            await client.send_audio(numbered(100))
            await client.send_audio(numbered(100))
        await until(lambda: server.engines["transcribe"].slots_used == 0 and not asr_tasks())


async def test_an_engine_that_breaks_is_told_and_comes_back(server: Server) -> None:
    async with asr_client(server) as client, asr_client(server) as idle:
        await idle.until("Ready")
        await client.send_audio(broken_frame())
        for each in (client, idle):
            assert "failed" in (await each.until("Error"))["message"]
            with pytest.raises(AsrClosed):
                await each.next()
    await until(lambda: server.engines["transcribe"].ready)
    async with asr_client(server) as client:
        assert await transcribed(client, numbered(1)) == ["1"]


async def test_a_server_that_stops_tells_and_closes(server: Server) -> None:
    async with asr_client(server) as client:
        await client.until("Ready")
        await client.send_audio(numbered(1))
        stopping = asyncio.create_task(server.stop(0.0), name="stop")
        assert "shutting down" in (await client.until("Error"))["message"]
        with pytest.raises(AsrClosed):
            await client.next()
        await stopping
    assert not asr_tasks()


async def test_a_server_that_stops_gives_streams_time_to_end(server: Server) -> None:
    async with asr_client(server) as client:
        await client.until("Ready")
        stopping = asyncio.create_task(server.stop(20.0), name="stop")
        await until(lambda: server.admission.draining)
        assert await transcribed(client, numbered(2)) == ["1", "2"]
    started_at = time.monotonic()
    await stopping
    assert time.monotonic() - started_at < 10
    assert not client.of("Error")


async def test_a_server_that_stops_does_not_wait_for_who_does_not_read(server: Server) -> None:
    server.asr_sockets.limits = SocketLimits(close_s=0.2)
    async with asr_client(server, autoping=False, autoclose=False) as client:
        await client.until("Ready")
        started_at = time.monotonic()
        await server.stop(0.0)
        assert time.monotonic() - started_at < 5


# A real model


@pytest.fixture(scope="module")
def stt_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from rtc_server.models.tiny import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-stt", "stt")


@contextlib.asynccontextmanager
async def real_server(checkpoint: Path, slots: int) -> AsyncIterator[Server]:
    arguments = ["--port", "0", "--model", "echo", "--vad", "off", "--threads", "1", *UNLIMITED]
    stt = ["--stt", str(checkpoint), "--stt-slots", str(slots), "--device", "cpu"]
    async with running(Server(parse([*arguments, *stt], environment={}))) as server:
        yield server


def by_the_moshi_package(checkpoint: Path, *streams: FloatArray) -> list[list[tuple[str, float]]]:
    """The words of each stream and their starts, by plain loops of one stream, as the package's own tools make them."""
    import torch
    from moshi.models.lm import LMGen
    from moshi.utils.compile import no_compile

    from rtc_server.models.kyutai.checkpoint import open_checkpoint

    found = open_checkpoint(str(checkpoint))
    mimi, lm, tokenizer = found.get_mimi("cpu"), found.get_moshi("cpu", torch.float32), found.get_text_tokenizer()
    delay_s = found.stt_config["audio_delay_seconds"]
    lm_gen = LMGen(lm, temp=0.0, temp_text=0.0)

    def text_tokens(pcm: FloatArray) -> list[int]:
        with torch.no_grad(), no_compile(), mimi.streaming(1), lm_gen.streaming(1):
            made = []
            for index, frame in enumerate(pcm.reshape(-1, FRAME_SAMPLES)):
                codes = mimi.encode(torch.from_numpy(frame)[None, None])
                if index == 0:
                    mimi.reset_streaming()
                tokens = lm_gen.step(codes)
                made.append(3 if tokens is None else int(tokens[0, 0, 0]))
            return made

    def words(tokens: list[int]) -> list[tuple[str, float]]:
        found: list[tuple[str, float]] = []
        in_word = False
        for index, token in enumerate(tokens):
            piece = "" if token in (0, 3) else tokenizer.id_to_piece(token)
            if piece and (piece.startswith("▁") or not in_word):
                found.append(("", max(0.0, index * FRAME_S - delay_s)))
            if piece:
                found[-1] = (found[-1][0] + piece.replace("▁", ""), found[-1][1])
            in_word = bool(piece)
        return found

    return [words(text_tokens(pcm)) for pcm in streams]


def assert_same_words(messages: list[dict[str, Any]], expected: list[tuple[str, float]]) -> None:
    assert [message["text"] for message in messages] == [text for text, _ in expected]
    for message, (_, start_s) in zip(messages, expected, strict=True):
        assert message["start_time"] == pytest.approx(start_s, abs=FRAME_S + 1e-6)


@pytest.mark.timeout(300)
async def test_words_are_those_of_a_plain_loop_over_the_moshi_package(stt_checkpoint: Path) -> None:
    """By hand, and by the script of Kyutai, whose silence is part of the stream."""
    pcm = noise(3.2, seed=5)
    # What the model makes of the marker's silence comes only as far as the marker.
    tail = audio.silence(20 * FRAME_SAMPLES)
    second = audio.silence(MODEL_RATE_HZ)
    by_script = whole_frames(second, pcm, *[second] * 6)
    expected, expected_of_script = by_the_moshi_package(stt_checkpoint, np.concatenate((pcm, tail)), by_script)
    assert len(expected) > 5
    async with real_server(stt_checkpoint, slots=2) as server:
        async with asr_client(server) as client:
            await client.send_audio(pcm)
            await client.send_audio(whole_frames(tail, audio.silence(FRAME_SAMPLES)))
            await client.until("Step", step_idx=(pcm.size + tail.size) // FRAME_SAMPLES + 1)
            assert all(len(step["prs"]) == 4 for step in client.of("Step"))
            assert_same_words(client.of("Word"), expected[: len(client.words)])
            assert len(expected) - len(client.words) <= 1  # one may still be open
        transcript = await kyutai_file_script(server, pcm)
        told = [{"text": word["text"], "start_time": word["timestamp"][0]} for word in transcript]
        assert len(told) > 5
        assert_same_words(told, expected_of_script[: len(told)])


def whole_frames(*parts: FloatArray) -> FloatArray:
    pcm = np.concatenate(parts)
    return pcm[: pcm.size // FRAME_SAMPLES * FRAME_SAMPLES]


@pytest.mark.timeout(300)
async def test_streams_through_one_batch_have_each_its_own_words(stt_checkpoint: Path) -> None:
    spoken = [noise(2.0 + 0.16 * number, seed=number) for number in range(4)]
    tail = audio.silence(8 * FRAME_SAMPLES)
    expected = by_the_moshi_package(stt_checkpoint, *(np.concatenate((pcm, tail)) for pcm in spoken))
    assert len({tuple(words) for words in expected}) == len(spoken)

    async def stream(server: Server, number: int) -> list[dict[str, Any]]:
        pcm = np.concatenate((spoken[number], tail, audio.silence(FRAME_SAMPLES)))
        async with asr_client(server) as client:
            for start in range(0, pcm.size, 1000 + 300 * number):
                await client.send_audio(pcm[start : start + 1000 + 300 * number])
            await client.until("Step", step_idx=pcm.size // FRAME_SAMPLES)
            return client.of("Word")

    async with real_server(stt_checkpoint, slots=4) as server:
        told = await asyncio.gather(*(stream(server, number) for number in range(len(spoken))))
    for messages, words in zip(told, expected, strict=True):
        assert len(words) - len(messages) <= 1
        assert_same_words(messages, words[: len(messages)])


@pytest.mark.timeout(300)
async def test_an_engine_that_is_killed_is_told_and_comes_back(stt_checkpoint: Path) -> None:
    async with real_server(stt_checkpoint, slots=2) as server:
        engine = server.engines["transcribe"]
        async with asr_client(server) as client:
            await client.send_audio(noise(1.0, seed=1))
            await client.until("Step", step_idx=3)
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            assert "failed" in (await client.until("Error"))["message"]
            with pytest.raises(AsrClosed):
                await client.next()
        await until(lambda: engine.ready, timeout_s=60)
        async with asr_client(server) as client:
            await client.send_audio(noise(1.0, seed=1))
            await client.until("Step", step_idx=12)
