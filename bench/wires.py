"""What goes over the WebSocket of each door: how a client begins, what it says, and the sound in what it is told.

No sockets and no clock. One :class:`Wire` is one client's.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import numpy as np

from bench.tape import OPUS_HZ, PACKET_SAMPLES, Decoder, FloatArray, SoundDecoder, Tape
from rtc_server.audio import from_int16
from rtc_server.media.codecs import opus_ticks
from rtc_server.protocols import asr, moshi
from rtc_server.protocols.ogg import OggReader, OggWriter

Message = str | bytes
_PCM_HZ: Final = 24_000
_PER_SAMPLE: Final = OPUS_HZ // _PCM_HZ


class Wire(Protocol):
    """``path``: of the WebSocket. ``decoder``: makes one for the payloads that :meth:`heard` finds."""

    path: str

    @property
    def decoder(self) -> Callable[[], SoundDecoder]: ...

    def opening(self) -> Sequence[Message]:
        """What is sent first."""

    def may_speak(self, message: Message) -> bool:
        """Whether the server's ``message`` is the one that a client waits for before it speaks."""

    def say(self, pieces: Sequence[int]) -> Message:
        """Pieces of the tape, by their numbers, as one message."""

    def heard(self, message: Message) -> Sequence[tuple[bytes, int]]:
        """The sound in a message: payloads, with how long each lasts, in samples at 48 kHz."""


class PcmDecoder:
    """16 bits at 24 kHz to float32 at 48 kHz: each sample twice, for who looks at no more than 4 kHz of it."""

    def decode(self, payload: bytes) -> FloatArray:
        return np.repeat(_floats(payload), _PER_SAMPLE)


def _floats(raw: bytes) -> FloatArray:
    return from_int16(np.frombuffer(raw, "<i2"))


class _Events:
    """OpenAI's way: JSON, with PCM in base64."""

    decoder = PcmDecoder
    started: str
    append: str
    voice: str

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def heard(self, message: Message) -> Sequence[tuple[bytes, int]]:
        event = json.loads(message)
        if event["type"] != self.voice:
            return []
        raw = base64.b64decode(event["delta"])
        return [(raw, len(raw) // 2 * _PER_SAMPLE)]

    def say(self, pieces: Sequence[int]) -> Message:
        raw = b"".join(self._tape.pcm[number % len(self._tape.pcm)] for number in pieces)
        return json.dumps({"type": self.append, "audio": base64.b64encode(raw).decode()})

    def may_speak(self, message: Message) -> bool:
        return bool(json.loads(message)["type"] == self.started)


class Live(_Events):
    path = "/v1/live/sessions"
    started, append, voice = "session.started", "session.input_audio.append", "session.output_audio.delta"

    def opening(self) -> Sequence[Message]:
        return [json.dumps({"type": "session.start", "session": {"model": "gpt-live-1"}})]


class Realtime(_Events):
    path = "/v1/realtime?model=gpt-realtime"
    started, append, voice = "session.created", "input_audio_buffer.append", "response.output_audio.delta"

    def opening(self) -> Sequence[Message]:
        return []


class Moshi:
    """Moshi's own: Ogg/Opus, a packet of 20 ms on a page."""

    path = "/api/chat"
    decoder = Decoder

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._pages = OggWriter(serial=1)
        self._granule = 0
        self._ogg = OggReader()

    def opening(self) -> Sequence[Message]:
        head = struct.pack("<8sBBHIhB", b"OpusHead", 1, 1, 0, OPUS_HZ, 0, 0)
        tags = struct.pack("<8sII", b"OpusTags", 0, 0)
        return [moshi.encode_audio(self._pages.page(head, 0) + self._pages.page(tags, 0))]

    def may_speak(self, message: Message) -> bool:
        return message == moshi.HANDSHAKE_MESSAGE

    def say(self, pieces: Sequence[int]) -> Message:
        pages = []
        for number in pieces:
            self._granule += PACKET_SAMPLES
            pages.append(self._pages.page(self._tape.packets[number % len(self._tape.packets)], self._granule))
        return moshi.encode_audio(b"".join(pages))

    def heard(self, message: Message) -> Sequence[tuple[bytes, int]]:
        assert isinstance(message, bytes)
        packets = self._ogg.read(moshi.audio_of(message, moshi.MOSHI))
        return [(packet, opus_ticks(packet)) for packet in packets if not packet.startswith(b"Opus")]


class Translation(_Events):
    """What comes back is no echo: it is in another language, and is left unheard."""

    path = "/v1/realtime/translations?model=gpt-realtime-translate"
    started, append, voice = "session.created", "session.input_audio_buffer.append", ""

    def opening(self) -> Sequence[Message]:
        return [json.dumps({"type": "session.update", "session": {"audio": {"output": {"language": "pt"}}}})]


class Asr:
    """Kyutai's streaming speech-to-text: msgpack, with samples in floating point. Words come back, and no sound."""

    path = "/api/asr-streaming"
    decoder = PcmDecoder

    def __init__(self, tape: Tape) -> None:
        self._pcm = [_floats(raw) for raw in tape.pcm]

    def opening(self) -> Sequence[Message]:
        return []

    def may_speak(self, message: Message) -> bool:
        assert isinstance(message, bytes)
        return isinstance(asr.parse_server_message(message), asr.Ready)

    def say(self, pieces: Sequence[int]) -> Message:
        pcm = np.concatenate([self._pcm[number % len(self._pcm)] for number in pieces])
        return asr.encode_client_message(asr.Audio(pcm))

    def heard(self, message: Message) -> Sequence[tuple[bytes, int]]:
        return []


WIRES: Final[Mapping[str, Callable[[Tape], Wire]]] = {
    "moshi": Moshi,
    "live-websocket": Live,
    "realtime-websocket": Realtime,
    "translation": Translation,
    "asr": Asr,
}
