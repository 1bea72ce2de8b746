"""What the measuring clients of the doors that write say is what those doors take, sample by sample."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.tape import Tape, warble_tape
from bench.wires import Asr, Translation
from rtc_server.protocols import asr
from rtc_server.protocols.openai.formats import decode_audio
from rtc_server.protocols.openai.translation import APPEND_AUDIO, FORMAT


@pytest.fixture(scope="module")
def tape() -> Tape:
    return warble_tape(1.0)


def test_speech_to_text_gets_the_tape_in_floating_point(tape: Tape) -> None:
    wire, last = Asr(tape), len(tape.pcm) - 1
    message = wire.say([last, last + 1])
    assert isinstance(message, bytes)
    said = asr.parse_client_message(message)
    assert isinstance(said, asr.Audio)
    expected = np.frombuffer(tape.pcm[last] + tape.pcm[0], "<i2") / 32768
    np.testing.assert_array_equal(said.pcm, expected.astype(np.float32))
    assert not np.array_equal(tape.pcm[last], tape.pcm[0])


def test_speech_to_text_is_spoken_to_when_it_is_ready(tape: Tape) -> None:
    wire = Asr(tape)
    ready, word = (asr.encode_server_message(one) for one in (asr.Ready(), asr.Word("hello", 0.5)))
    assert (wire.may_speak(ready), wire.may_speak(word)) == (True, False)
    assert not wire.heard(word)


def test_translation_gets_the_tape_in_events(tape: Tape) -> None:
    event = json.loads(Translation(tape).say([0, 1]))
    assert event["type"] == APPEND_AUDIO
    assert decode_audio(event["audio"], FORMAT) == tape.pcm[0] + tape.pcm[1]
