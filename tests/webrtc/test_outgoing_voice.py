"""A voice that several connections share: it is encoded once, whoever comes and goes, on virtual time."""

from __future__ import annotations

import asyncio

import pytest
from aiortc.mediastreams import MediaStreamError

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.system.wheel import Wheel
from rtc_server.webrtc.outgoing_voice import EncodedPacket, Share, SharedVoice
from tests.support.signals import sine
from tests.support.virtual_time import in_virtual_time, now, virtual_loop

BITRATE = 32_000
PACKET_S = 0.02


class Counting:
    """An encoder whose packets are numbered; it notes what it is told."""

    def __init__(self) -> None:
        self.packets = 0
        self.breaks = False
        self.loss: list[int] = []

    def encode(self, pcm: FloatArray) -> bytes:
        if self.breaks:
            raise RuntimeError("the encoder breaks")
        self.packets += 1
        return b"%06d" % self.packets

    def set_expected_loss(self, percent: int) -> None:
        self.loss.append(percent)

    def set_bitrate(self, bitrate: int) -> None:
        pass

    def set_dtx(self, on: bool) -> None:
        pass


class Stage:
    """A shared voice, and all encoders that it has made."""

    def __init__(self) -> None:
        self.encoders: list[Counting] = []
        self.voice = SharedVoice(0, BITRATE, self._make, Wheel(now))

    def _make(self) -> Counting:
        self.encoders.append(Counting())
        return self.encoders[-1]

    def say(self, frames: int = 1) -> None:
        self.voice.play(sine(frames * audio.FRAME_SAMPLES), now())

    async def joined(self) -> tuple[Share, asyncio.Task[EncodedPacket]]:
        """A share whose sender has asked for its first packet."""
        share = self.voice.share()
        asked = asyncio.create_task(share.track.next_packet())
        await asyncio.sleep(0)
        return share, asked


async def packets(share: Share, count: int) -> list[EncodedPacket]:
    return [await share.track.next_packet() for _ in range(count)]


def shared_voices() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "shared-voice"]


@in_virtual_time
async def test_a_frame_is_encoded_once_for_all() -> None:
    """Five connections get the same packets at the same time, the first of each with a marker."""
    stage = Stage()
    joined = [await stage.joined() for _ in range(5)]
    stage.say(2)
    first = [await asked for _, asked in joined]
    rest = await asyncio.gather(*(packets(share, 7) for share, _ in joined))
    assert first == 5 * [(b"000001", 0, True)]
    assert rest == 5 * [[(b"%06d" % (number + 1), 960 * number, False) for number in range(1, 8)]]
    assert [encoder.packets for encoder in stage.encoders] == [8]
    await stage.voice.close()


@in_virtual_time
async def test_nothing_is_encoded_while_no_connection_sends() -> None:
    """A share whose connection has not come about yet is none; what was said before is not heard later."""
    stage = Stage()
    waiting = stage.voice.share()
    stage.say(3)
    virtual_loop().stall(1.0)
    await asyncio.sleep(0)
    assert (stage.encoders, shared_voices()) == ([], [])
    asked = asyncio.create_task(waiting.track.next_packet())
    await asyncio.sleep(0)
    assert waiting.playout.depth_ms == 0
    stage.say()
    assert (await asked)[0] == b"000001"
    await stage.voice.close()


@in_virtual_time
async def test_one_that_comes_later_hears_it_from_the_next_packet_on() -> None:
    stage = Stage()
    one, asked = await stage.joined()
    stage.say(2)
    await asked
    heard = await packets(one, 3)
    _, late = await stage.joined()
    assert await late == (b"000005", 4 * 960, True)
    assert heard[-1] == (b"000004", 3 * 960, False)
    assert await one.track.next_packet() == (b"000005", 4 * 960, False)
    await stage.voice.close()


@in_virtual_time
async def test_the_last_that_leaves_ends_it_and_the_next_begins_afresh() -> None:
    stage = Stage()
    one, asked_one = await stage.joined()
    other, asked_other = await stage.joined()
    stage.say()
    await asyncio.gather(asked_one, asked_other)
    one.track.stop()
    with pytest.raises(MediaStreamError):
        await one.track.next_packet()
    assert (await other.track.next_packet())[0] == b"000002"
    other.track.stop()
    await asyncio.sleep(0)
    assert shared_voices() == []
    _, again = await stage.joined()
    stage.say()
    assert await again == (b"000001", 0, True)
    assert len(stage.encoders) == 2
    await stage.voice.close()


@in_virtual_time
async def test_one_that_takes_nothing_keeps_nothing_and_holds_up_none() -> None:
    stage = Stage()
    one, asked_one = await stage.joined()
    slow, asked_slow = await stage.joined()
    stage.say(6)
    await asyncio.gather(asked_one, asked_slow)
    heard = await packets(one, 20)
    assert heard[-1][0] == b"000021"
    late = await packets(slow, 5)
    assert [payload for payload, _, _ in late] == [b"%06d" % number for number in range(17, 22)]
    await stage.voice.close()


@in_virtual_time
async def test_an_interruption_is_heard_by_all_at_once() -> None:
    stage = Stage()
    share, asked = await stage.joined()
    stage.say(5)
    await asked
    assert share.playout.depth_ms > 300
    stage.voice.clear()
    assert share.playout.depth_ms == 0
    await stage.voice.close()


@in_virtual_time
async def test_the_one_that_loses_most_decides_how_packets_are_protected() -> None:
    stage = Stage()
    one, _ = await stage.joined()
    other, _ = await stage.joined()
    never = stage.voice.share()
    (encoder,) = stage.encoders
    one.on_loss_report(0.2)
    other.on_loss_report(0.0)
    never.on_loss_report(0.9)
    assert encoder.loss == [20]
    one.track.stop()
    other.on_loss_report(0.01)
    assert encoder.loss[1:] == [16], "it decays as for one connection"
    await stage.voice.close()


@in_virtual_time
async def test_an_encoder_that_fails_ends_its_listeners_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    share, asked = await stage.joined()
    stage.encoders[0].breaks = True
    stage.say()
    with pytest.raises(MediaStreamError):
        await asked
    assert share.track.readyState == "ended"
    assert "a shared voice failed" in caplog.text
    await asyncio.sleep(0)
    assert shared_voices() == []
    _, again = await stage.joined()
    stage.say()
    assert (await again)[0] == b"000001"
    await stage.voice.close()


@in_virtual_time
async def test_a_close_leaves_no_task() -> None:
    stage = Stage()
    for _ in range(2):
        share, asked = await stage.joined()
        stage.say()
        await asked
        await stage.voice.close()
        await stage.voice.close()
        assert shared_voices() == []
        share.track.stop()
