"""``python -m fuzz.fuzz_inbound``: RTP packets of any kind, at any time, into one peer's microphone.

The input is a program of packets and pauses; see :func:`_attack`. Whatever it does, nothing raises, the frames keep
to real time and hold finite samples, little is kept, and a peer that behaves afterwards is heard.
"""

from __future__ import annotations

import atheris

from fuzz.harness import fuzz

with atheris.instrument_imports(include=["rtc_server"]):
    from rtc_server import audio
    from rtc_server.audio import FloatArray
    from rtc_server.media import libopus
    from rtc_server.media.inbound import InboundStream
    from rtc_server.media.jitter import MAX_HELD

import numpy as np

_CODECS = ("OPUS", "PCMU", "PCMA", "G722")
_TICKS = {"OPUS": 960, "PCMU": 160, "PCMA": 160, "G722": 160}
_PACKET_S = audio.PACKET_MS / 1000
_FRAME_S = audio.FRAME_MS / 1000
_MAX_ACTIONS = 400
_STALL = 250
_FLOOD = 240
"""Lengths of a pause that mean something else."""
_FLOOD_PACKETS = 250
_FLOODS = 100
"""In one program; two seconds of them."""
_LEAD_FRAMES = 3
"""How far frames may run ahead of real time (rtc_server/media/microphone.py)."""
_LAG_S = 1.5
"""How long there may be no frame at all: every wait there is, one after the other, is less."""
_TONE_DBFS = -13.0


def _opus_packets(seconds: float) -> list[bytes]:
    """A tone."""
    at = np.arange(round(seconds / _PACKET_S) * audio.PACKET_SAMPLES)
    tone = (0.316 * np.sin(2 * np.pi * 440 * at / audio.MODEL_RATE_HZ)).astype(np.float32)
    encoder = libopus.Encoder(audio.MODEL_RATE_HZ, 32_000)
    encoder.set_expected_loss(20)
    return [encoder.encode(block) for block in tone.reshape(-1, audio.PACKET_SAMPLES)]


_PACKETS = _opus_packets(2.0)


class Program:
    """Bytes, read as numbers; zeros for ever after the last."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def number(self, size: int = 1, signed: bool = False) -> int:
        return int.from_bytes(self.bytes(size).ljust(size, b"\0"), "little", signed=signed)

    def bytes(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken


class Call:
    """A stream in virtual time, watched."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.stream = InboundStream(self.now)
        self._began = self.now
        self._polled_since = self._frame_at = self.now
        self.frames: list[FloatArray] = []

    def push(self, codec: str, ssrc: int, sequence: int, timestamp: int, payload: bytes) -> None:
        self._take(self.stream.push(codec, ssrc, sequence % 2**16, timestamp % 2**32, payload, self.now))

    def wait(self, seconds: float) -> None:
        """As the server does: polling whenever it is due."""
        until = self.now + seconds
        while (due := self.stream.deadline) <= until:
            before = self.stream.deadline, self._dropped
            self.now = max(self.now, due)
            self._take(self.stream.poll(self.now))
            assert (self.stream.deadline, self._dropped) != before, "a deadline that does not pass"
        self.now = until
        self._watch_lag()

    def stall(self, seconds: float) -> None:
        """The event loop hangs."""
        self.now += seconds
        self._take(self.stream.poll(self.now))

    @property
    def _dropped(self) -> int:
        return self.stream.timeline.dropped

    def _take(self, frames: list[FloatArray]) -> None:
        for frame in frames:
            assert frame.dtype == np.float32
            assert frame.shape == (audio.FRAME_SAMPLES,)
            assert np.isfinite(frame).all()
            assert np.abs(frame).max() <= 1
        self.frames += frames
        if frames:
            self._frame_at = self.now
        assert len(self.frames) <= _LEAD_FRAMES + (self.now - self._began) / _FRAME_S + 1e-6
        codec = self.stream.receiver._codec
        assert codec is None or len(codec.jitter._held) <= MAX_HELD
        self._watch_lag()

    def _watch_lag(self) -> None:
        assert self.now - self._frame_at <= _LAG_S, "no frame for too long"


def _attack(program: Program, call: Call) -> None:
    """Each action is a byte: codec (2 bits), SSRC (2), numbering (2), and whether to wait and how the payload is made
    (1 each, with more bytes behind). A packet may also be sent hundreds of times."""
    sequence = [100, 65_530, 0, 32_768]
    timestamp = [0, 2**32 - 2000, 2**31, 5]
    budget = _FLOODS
    for _ in range(_MAX_ACTIONS):
        if not program.left:
            return
        action = program.number()
        codec, ssrc = _CODECS[action & 3], action >> 2 & 3
        match action >> 4 & 3:
            case 0:  # the next one
                sequence[ssrc] += 1
                timestamp[ssrc] += _TICKS[codec]
            case 1:  # some packets on, or back
                step = program.number(signed=True)
                sequence[ssrc] += step
                timestamp[ssrc] += step * _TICKS[codec]
            case 2:  # numbering that does not fit
                sequence[ssrc] += program.number(signed=True)
                timestamp[ssrc] += program.number(3, signed=True)
            case 3:  # anything
                sequence[ssrc] = program.number(2)
                timestamp[ssrc] = program.number(4)
        pause = program.number() if action & 64 else 0
        payload = _payload(program, bool(action & 128))
        if pause >= _STALL:
            call.stall((pause - _STALL + 1) * 0.2)
        elif pause >= _FLOOD:
            budget -= 1
            for number in range(_FLOOD_PACKETS if budget >= 0 else 0):
                call.push(codec, ssrc, sequence[ssrc] + number * (pause & 1), timestamp[ssrc], payload)
                call.wait(_PACKET_S / _FLOOD_PACKETS)
        else:
            call.wait(pause / 500)
        call.push(codec, ssrc, sequence[ssrc], timestamp[ssrc], payload)


def _payload(program: Program, odd: bool) -> bytes:
    kind = program.number()
    if not odd:
        return _PACKETS[kind % len(_PACKETS)]
    match kind & 3:
        case 0:  # a few bytes of any kind
            return program.bytes(kind >> 2) or b"\0"
        case 1:  # much of the same
            return bytes([program.number()]) * (1 + program.number(2) % 1500)
        case 2:  # an Opus packet with one byte changed
            packet = bytearray(_PACKETS[kind >> 2])
            packet[program.number() % len(packet)] = program.number()
            return bytes(packet)
        case _:  # an Opus packet cut off
            whole = _PACKETS[kind >> 2]
            return whole[: 1 + program.number() % len(whole)]


def _behave(call: Call) -> None:
    """Two seconds of a tone, from a new source: heard, without a hole, from half a second on."""
    for number, packet in enumerate(_PACKETS):
        if number == len(_PACKETS) // 4:
            heard_before = len(call.frames)
        call.push("OPUS", 0xABCDEF, number, 77 + number * _TICKS["OPUS"], packet)
        call.wait(_PACKET_S)
    heard = call.frames[heard_before:]
    assert len(heard) >= int(len(_PACKETS) * 3 / 4 * _PACKET_S / _FRAME_S) - 1
    levels = [audio.level_dbfs(frame) for frame in heard]
    assert all(abs(level - _TONE_DBFS) < 3 for level in levels), levels


def test_one(data: bytes) -> None:
    call = Call()
    _attack(Program(data), call)
    _behave(call)


_SEEDS = (
    b"",
    bytes(each for number in range(40) for each in (64, 10, number)),  # a call
    bytes(each for number in range(40) for each in (64 | number % 4, 10, number)),  # every codec in turn
    bytes(each for number in range(20) for each in (64 | 16, number % 3, 20, number)),  # losses and repeats
    bytes(each for number in range(20) for each in (128 | 64 | 48, *range(6), 10, 4 * number, 0xFF, number)),
    bytes(each for _ in range(200) for each in (64 | 16, 0, 10, 1)),  # one packet for ever
    bytes(each for _ in range(100) for each in (64 | 32, 1, 0x00, 0x2D, 0, 10, 1)),  # quicker than time
    bytes(each for _ in range(100) for each in (64 | 32, 1, 0x78, 0, 0, 10, 1)),  # slower than time
    bytes(each for _ in range(20) for each in (64, 255, 1)),  # a loop that hangs
    bytes(each for number in range(100) for each in (64 | 16, 0, 240 + number % 2, 1)),  # a flood of copies
    bytes(each for _ in range(100) for each in (0, 1, 64 | 16, 256 - 50, 241, 1, 16, 50, 1)),  # and of late ones
    bytes(each for number in range(100) for each in (128 | 64, 10, 4 << 2, 0x80, *b"abc")),  # a very loud packet
)


if __name__ == "__main__":
    fuzz(test_one, _SEEDS)
