"""Clients of Kyutai's speech-to-text server find here what they know: its messages, their order and their times."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest

from lab.inputs.ogg import ogg_opus
from lab.waiting import until
from rtc_server import audio
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES
from tests.support.asr import (
    asr_client,
    asr_server,
    kyutai_file_script,
    noise,
)
from tests.support.asr_words import FRAME_S, transcribed
from tests.support.parrot import DELAY_FRAMES, Parrot, numbered


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with asr_server(lambda: Parrot(slots=2, heads=4)) as running_server:
        yield running_server


def metric(server: Server, name: str) -> float | None:
    return server.metrics.registry.get_sample_value(name)


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
