"""One conversation and several, as docs/protocol.md describes them: a real client, real UDP, the echo model, and its
sound as it comes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection

from lab.sound.tones import TONE_DBFS, Ear, longest_gap_ms, pitch_hz, tone, tone_dbfs, voiced_ms
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import MODEL_RATE_HZ, FloatArray, level_dbfs
from rtc_server.client import VoiceClient
from rtc_server.sessions import session
from tests.conftest import running_server
from tests.support.calls import TapeTrack, connected, get_json, listen, prefer_codec, stats_of, track_client
from tests.support.leftovers import leaves_nothing
from tests.support.protocol_page import documented
from tests.support.server_process import server_process

pytestmark = pytest.mark.alone

SILENCE_DBFS = -60.0


async def test_a_tone_comes_back_as_it_was_sent(server: Server, base_url: str) -> None:
    """Same pitch, same level, no holes."""
    ear = Ear()
    async with leaves_nothing(server), VoiceClient(base_url, tone(440), on_voice=ear):
        await ear.until_voice()
        await ear.hear(1.0)
        pcm = await ear.hear_undisturbed(3.0)
    assert longest_gap_ms(pcm) <= 40
    assert pitch_hz(pcm) == pytest.approx(440, abs=0.5)
    assert tone_dbfs(pcm[:MODEL_RATE_HZ], 440) == pytest.approx(TONE_DBFS, abs=1.0)
    assert level_dbfs(pcm) == pytest.approx(TONE_DBFS, abs=1.0)


@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "G722"])
async def test_a_telephone_codec_works_both_ways(server: Server, base_url: str, codec: str) -> None:
    """A client that offers nothing but a telephone codec hears itself in it."""
    ear = Ear()
    client = VoiceClient(base_url, tone(440), on_voice=ear)
    prefer_codec(client, f"audio/{codec}")
    async with leaves_nothing(server), client:
        assert f" {codec}/8000" in client.pc.remoteDescription.sdp
        assert "opus" not in client.pc.remoteDescription.sdp.lower()
        await ear.until_voice()
        await ear.hear(0.5)
        pcm = await ear.hear_undisturbed(2.0)
    assert longest_gap_ms(pcm) <= 40
    assert pitch_hz(pcm) == pytest.approx(440, abs=0.5)
    assert level_dbfs(pcm) == pytest.approx(TONE_DBFS, abs=1.0)


async def test_eight_clients_hear_themselves_and_nobody_else() -> None:
    """Each hears its own tone; those of the others are at least 30 dB under it."""
    tones = [300, 450, 650, 850, 1150, 1450, 1850, 2350]
    ears = [Ear() for _ in tones]
    # In a process of its own, for nine ends of eight calls in one event loop would be no conversation.
    async with server_process("--model", "echo") as remote, contextlib.AsyncExitStack() as stack:
        await remote.wait_ready()
        for hz, ear in zip(tones, ears, strict=True):
            client = await stack.enter_async_context(track_client(remote.url, TapeTrack(hz), on_voice=ear))
            await client.wait_for("connected")
        await asyncio.gather(*(ear.until_voice() for ear in ears))
        heard = await asyncio.gather(*(ear.hear(3.0) for ear in ears))
        status, body = await get_json(f"{remote.url}/status")
        assert (status, body["engines"]["echo"]["slots_used"]) == (200, 8)
    for hz, pcm in zip(tones, heard, strict=True):
        assert pitch_hz(pcm) == pytest.approx(hz, abs=5), "its own, though a busy machine may cut holes into it"
        others = {other: tone_dbfs(pcm, other) for other in tones if other != hz}
        assert max(others.values()) <= tone_dbfs(pcm, hz) - 30, f"{hz} Hz hears {others}"


async def test_a_second_client_comes_and_goes_while_the_first_talks(server: Server, base_url: str) -> None:
    """The first notices nothing; neither hears the other."""
    first_ear = Ear()

    async def visit() -> FloatArray:
        ear = Ear()
        async with VoiceClient(base_url, tone(700), on_voice=ear) as client:
            await client.wait_for("connected")
            await ear.until_voice()
            await ear.hear(0.5)
            return await ear.hear_undisturbed(1.0)

    async with leaves_nothing(server), VoiceClient(base_url, tone(440), on_voice=first_ear) as first:
        await first_ear.until_voice()
        await first_ear.hear(0.5)
        visiting = asyncio.create_task(visit())
        first_pcm = await first_ear.hear_undisturbed(2.0)
        second_pcm = await visiting
        assert not first.closed.is_set()
    assert longest_gap_ms(first_pcm) <= 40
    assert tone_dbfs(first_pcm, 700) <= tone_dbfs(first_pcm, 440) - 30
    assert pitch_hz(second_pcm) == pytest.approx(700, abs=0.5)
    assert tone_dbfs(second_pcm, 440) <= tone_dbfs(second_pcm, 700) - 30


async def test_reset_is_answered_and_drops_what_was_waiting_to_be_played() -> None:
    """With 400 ms of reserve, an echo goes on for as long after the microphone has stopped; not after a reset."""
    ear, microphone, silent = Ear(), tone(440), False
    async with (
        running_server("--model", "echo", "--playout-margin-ms", "400") as server,
        leaves_nothing(server),
        VoiceClient(
            f"http://127.0.0.1:{server.port}", lambda n: microphone(n) * (0 if silent else 1), on_voice=ear
        ) as client,
    ):
        await ear.until_voice()
        await client.wait_for("state", state="speaking")
        silent = True
        client.send({"type": "reset"})
        answer = await client.wait_for("state", reason="reset")
        after = ear.samples
        await ear.hear(1.0)
        assert set(answer) == {"type", "time_ms", "seq", "state", "reason"}
        assert answer["state"] == "listening"
        # What was on its way is still heard: 80 ms in each of the two jitter buffers, and a frame half full.
        assert voiced_ms(ear.since(after)) < 300
        silent = False
        await ear.until_voice()


async def test_stats_have_the_documented_fields_and_sensible_values(server: Server, base_url: str) -> None:
    """Exactly the fields of docs/protocol.md; the figures of a call without trouble are those of a call without
    trouble."""
    ear = Ear()
    options = {"stats_interval_ms": 250}
    async with VoiceClient(base_url, tone(440), options=options, on_voice=ear) as client:
        await ear.until_voice()
        await until(lambda: any(_is_of_the_tone(event) for event in client.events), "figures of a tone that goes on")
        stats = next(event for event in client.events if _is_of_the_tone(event))
    assert set(stats) == {"type", "time_ms", *documented("\n`stats`:\n")}
    assert stats["packets_received"] >= 50
    assert (stats["packets_lost"], stats["loss_in"], stats["loss_out"]) == (0, 0, 0)
    assert 0 <= stats["jitter_in_ms"] < 100
    assert stats["rtt_ms"] is None or 0 <= stats["rtt_ms"] < 1000
    assert stats["frames_in"] >= stats["frames_out"] >= 12
    assert stats["frames_filled"] <= stats["frames_in"]
    assert 0 < stats["engine_ms"] < 1000
    assert 0 <= stats["playout_ms"] <= 480


def _is_of_the_tone(event: dict[str, Any]) -> bool:
    """After a second of it. A frame in which this machine was held up has another level."""
    if event["type"] != "stats" or event["frames_out"] < 12:
        return False
    return all(event[f"level_{way}_dbfs"] == pytest.approx(TONE_DBFS, abs=1.0) for way in ("in", "out"))


async def test_stats_come_as_often_as_asked(server: Server, base_url: str) -> None:
    async with VoiceClient(base_url, tone(440)) as client:
        await client.wait_for("stats")
        client.send({"type": "settings", "stats_interval_ms": 250})
        await until(lambda: len(_times(client)) >= 6, "six stats")
        gaps = [later - earlier for earlier, later in zip(_times(client)[2:], _times(client)[3:], strict=False)]
        assert min(gaps) >= 200
        assert sorted(gaps)[len(gaps) // 2] == pytest.approx(250, abs=100)


async def test_a_client_without_a_data_channel_is_served(server: Server, base_url: str) -> None:
    """The channel is optional: sound alone works."""
    ear = Ear()
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTrack(TapeTrack(440))
    tasks: list[asyncio.Task[None]] = []
    pc.on("track", lambda track: tasks.append(asyncio.create_task(listen(track, ear))))
    async with leaves_nothing(server):
        async with connected(base_url, pc) as answer:
            assert "m=application" not in answer
            await ear.until_voice()
            pcm = await ear.hear(1.0)
        await asyncio.gather(*tasks)
    assert pitch_hz(pcm) == pytest.approx(440, abs=0.5)


async def test_a_microphone_that_starts_late_is_not_cut_up(
    monkeypatch: pytest.MonkeyPatch, server: Server, base_url: str
) -> None:
    """Later than it is waited for: silence fills the time before; then nothing has to be filled."""
    monkeypatch.setattr(session, "START_PATIENCE_S", 0.0)
    ear, start = Ear(), asyncio.Event()
    async with leaves_nothing(server), track_client(base_url, TapeTrack(440, start), on_voice=ear) as client:
        await client.wait_for("connected")
        await ear.hear(0.5)
        start.set()
        await ear.until_voice()
        before = await stats_of(base_url, client)
        pcm = await ear.hear_undisturbed(2.0)
        after = await stats_of(base_url, client)
    assert before["frames_filled"] > 0
    assert after["frames_filled"] - before["frames_filled"] <= 2, "a steady microphone"
    assert pitch_hz(pcm) == pytest.approx(440, abs=1)


def _times(client: VoiceClient) -> list[int]:
    return [event["time_ms"] for event in client.events if event["type"] == "stats"]


async def test_the_model_begins_with_the_first_packet_of_its_client(
    monkeypatch: pytest.MonkeyPatch, server: Server, base_url: str
) -> None:
    """A client that connects before its microphone runs misses nothing: till then no frame is made and none sent."""
    monkeypatch.setattr(session, "START_PATIENCE_S", 3600.0)
    begin, ear = asyncio.Event(), Ear()
    client = track_client(base_url, TapeTrack(440, begin), options={"stats_interval_ms": 250}, on_voice=ear)
    async with leaves_nothing(server), client:
        await client.wait_for("connected")
        early = await client.wait_for("stats")
        begin.set()
        await ear.until_voice()
        client.events.clear()
        later = await client.wait_for("stats")
    assert (early["frames_in"], early["frames_out"]) == (0, 0)
    assert later["frames_in"] > later["frames_filled"] == 0
