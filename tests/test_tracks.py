"""Tracks: what is sent is paced, on virtual time."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.media.opus import make_encoder
from rtc_server.media.playout import PlayoutBuffer
from rtc_server.system.wheel import Wheel
from rtc_server.tracks import EncodedTrack, OutboundTrack, PacketClock, RawTrack
from tests.support.signals import sine
from tests.support.virtual_time import START_S, in_virtual_time, now, virtual_loop

Track = TypeVar("Track", bound=OutboundTrack)
PACKET_S = 0.02


def test_packets_are_due_every_20_ms() -> None:
    clock = PacketClock(START_S)
    now = START_S
    for number in range(1000):
        assert clock.next(now) == (number, pytest.approx(max(0.0, START_S + number * PACKET_S - now), abs=1e-9))
        now = START_S + number * PACKET_S + 0.001  # the sender's own work takes a millisecond
    assert clock.skipped == 0


def test_a_sender_that_is_late_does_not_make_the_next_one_late() -> None:
    """The schedule is that of the clock, not of the last packet."""
    clock = PacketClock(START_S)
    clock.next(START_S)
    assert clock.next(START_S + 0.035) == (1, 0.0)
    assert clock.next(START_S + 0.035) == (2, pytest.approx(0.005))


@pytest.mark.parametrize("behind", range(1, 6))
def test_a_short_stall_is_caught_up_with(behind: int) -> None:
    """Up to five packets leave at once, and none is skipped."""
    clock = PacketClock(START_S)
    now = START_S + behind * PACKET_S + 0.001
    numbers = []
    while True:
        number, wait_s = clock.next(now)
        numbers.append(number)
        if wait_s:
            break
    assert numbers == list(range(behind + 2))
    assert clock.skipped == 0


def test_after_a_long_stall_what_is_too_late_is_skipped() -> None:
    """Ten seconds of packets at once would be ten seconds of delay, or a burst that the network drops."""
    clock = PacketClock(START_S)
    assert clock.next(START_S)[0] == 0
    now = START_S + 10.0005
    assert clock.next(now) == (500, 0.0)
    assert clock.skipped == 499
    number, wait_s = clock.next(now)
    assert (number, wait_s) == (501, pytest.approx(0.0195))


def voice(frames: int = 1) -> PlayoutBuffer:
    playout = PlayoutBuffer(0)
    playout.push(sine(frames * audio.FRAME_SAMPLES), START_S)
    return playout


def encoded(playout: PlayoutBuffer) -> EncodedTrack:
    return EncodedTrack(playout, make_encoder(32_000), 32_000, Wheel(now))


def started(track: Track) -> Track:
    """The model's first frame is there."""
    track.start()
    return track


@in_virtual_time
async def test_encoded_packets_are_paced_and_stamped() -> None:
    """One every 20 ms of the clock, 960 ticks of 48 kHz apart."""
    track = started(encoded(voice(5)))
    packets = []
    for number in range(20):
        packets.append(await track.recv())
        assert now() == pytest.approx(START_S + number * PACKET_S)
    assert all(isinstance(packet, av.Packet) for packet in packets)
    assert [packet.pts for packet in packets] == [960 * number for number in range(20)]
    assert {packet.time_base.denominator for packet in packets if packet.time_base} == {48_000}


@in_virtual_time
async def test_raw_frames_are_stamped_on_their_own_clock() -> None:
    """For telephone codecs: 480 samples of 24 kHz mono a frame."""
    track = started(RawTrack(voice(), Wheel(now)))
    frames = [await track.recv() for _ in range(8)]
    for number, frame in enumerate(frames):
        assert isinstance(frame, av.AudioFrame)
        assert (frame.pts, frame.samples, frame.sample_rate) == (480 * number, 480, 24_000)
        assert (frame.format.name, frame.layout.name) == ("s16", "mono")
    heard = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames if isinstance(frame, av.AudioFrame)])
    np.testing.assert_array_equal(heard[:1920], audio.to_int16(sine(1920)))
    assert not heard[1920:].any()


@in_virtual_time
async def test_an_empty_buffer_sends_silence() -> None:
    """A gap would make the receiver conceal, and keeps no path open."""
    track = started(RawTrack(PlayoutBuffer(40), Wheel(now)))
    for _ in range(10):
        frame = await track.recv()
        assert isinstance(frame, av.AudioFrame)
        assert not frame.to_ndarray().any()


@in_virtual_time
async def test_after_a_stall_time_stamps_skip_what_was_never_sent() -> None:
    """They go on with the clock, and never back."""
    track = started(encoded(voice()))
    stamps = [(await track.recv()).pts for _ in range(3)]
    virtual_loop().stall(1.01)
    stamps += [(await track.recv()).pts for _ in range(3)]
    assert stamps == [0, 960, 1920, 52 * 960, 53 * 960, 54 * 960]
    assert now() == pytest.approx(START_S + 54 * PACKET_S)


@in_virtual_time
async def test_the_clock_starts_with_the_first_frame() -> None:
    """Connecting takes seconds, which are not owed to anybody; and packets leave right behind frames."""
    track = encoded(voice())
    asked = asyncio.create_task(track.recv())
    await asyncio.sleep(0)
    virtual_loop().stall(5.0)
    assert not asked.done()
    track.start()
    asked_at = now()
    assert (await asked).pts == 0
    assert now() == asked_at


@in_virtual_time
async def test_a_silence_is_not_sent_and_time_stamps_go_on_through_it() -> None:
    """A few packets of it are, for the receiver to learn how it sounds; the first word after it is marked."""
    track = started(encoded(voice(5)))
    sent = [packet for _ in range(100) if (packet := await track.next_packet()) is not None]
    assert 20 <= len(sent) < 60
    assert sent[0][2]
    track._playout.push(sine(audio.FRAME_SAMPLES), now())
    _, ticks, marker = await track.next_packet()
    assert marker
    assert ticks == 100 * 960


@in_virtual_time
async def test_a_steady_tone_is_no_silence() -> None:
    """libopus alone would take it for noise, and pause."""
    track = started(encoded(PlayoutBuffer(0)))
    for at in range(100):
        if at % 4 == 0:
            track._playout.push(sine(audio.FRAME_SAMPLES, 450.0), now())
        assert await track.next_packet() is not None


class NotingEncoder:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.loss: list[int] = []
        self.bitrates: list[int] = []
        self.dtx: list[bool] = []

    def encode(self, pcm: FloatArray) -> bytes:
        return b"abc"

    def set_expected_loss(self, percent: int) -> None:
        self.loss.append(percent)

    def set_bitrate(self, bitrate: int) -> None:
        self.bitrates.append(bitrate)

    def set_dtx(self, on: bool) -> None:
        self.dtx.append(on)


@in_virtual_time
async def test_the_encoder_is_told_once_that_it_may_pause_and_once_that_it_may_not() -> None:
    """After ten packets in which no sample is audible; one sample is, where all the others are zero."""
    encoder, playout = NotingEncoder(), PlayoutBuffer(0)
    track = started(EncodedTrack(playout, encoder, 32_000, Wheel(now)))
    click = audio.silence(audio.PACKET_SAMPLES)
    told = []
    for number in range(60):
        if number in (20, 25, 45):
            click[number] = 0.0009 if number == 45 else -0.02
            playout.push(click.copy(), now())
            click[number] = 0.0
        await track.next_packet()
        told.append(list(encoder.dtx))
    assert told[8] == []
    assert told[9] == told[19] == [True]
    assert told[20] == told[34] == [True, False]
    assert told[35] == told[59] == [True, False, True]


def test_the_encoder_follows_reported_loss_up_at_once_and_down_slowly() -> None:
    encoder = NotingEncoder()
    track = EncodedTrack(PlayoutBuffer(0), encoder, 32_000, Wheel())
    for fraction in (0.0, 0.2, 0.0, 0.0, 0.0, 0.0):
        track.on_loss_report(fraction)
    assert encoder.loss == [0, 20, 16, 13, 10, 8]
    assert encoder.bitrates[0] == encoder.bitrates[-1] == 32_000
    assert encoder.bitrates[1] < 32_000


@in_virtual_time
async def test_the_first_voice_is_told_once() -> None:
    told: list[float] = []
    playout = PlayoutBuffer(0)
    track = started(RawTrack(playout, Wheel(now), lambda: told.append(now())))
    for _ in range(5):
        await track.recv()
    assert not told
    playout.push(sine(audio.FRAME_SAMPLES), now())
    for _ in range(20):
        await track.recv()
    playout.push(sine(audio.FRAME_SAMPLES), now())
    await track.recv()
    assert told == [pytest.approx(START_S + 5 * PACKET_S)]


@in_virtual_time
async def test_a_stopped_track_ends() -> None:
    track = started(RawTrack(voice(), Wheel(now)))
    track.stop()
    with pytest.raises(MediaStreamError):
        await track.recv()
