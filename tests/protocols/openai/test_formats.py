"""Audio in events: which formats a client may name, and what of its base64 is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.formats import (
    LIVE_FORMATS,
    REALTIME_FORMATS,
    AudioFormat,
    decode_audio,
    encode_audio,
    find_format,
)


@pytest.mark.parametrize("audio_format", LIVE_FORMATS)
def test_a_format_is_found_by_what_it_is_described_with(audio_format: AudioFormat) -> None:
    described = audio_format.as_dict()
    found = find_format(str(described["type"]), int(described["rate"]), LIVE_FORMATS, "session.audio.format")
    assert found is audio_format


def test_without_a_rate_it_is_the_first_of_its_type() -> None:
    assert find_format("audio/pcm", None, REALTIME_FORMATS, "x") is AudioFormat.PCM_24K
    assert find_format("audio/pcma", None, REALTIME_FORMATS, "x") is AudioFormat.PCMA


@pytest.mark.parametrize(
    ("type_", "rate_hz"), [("audio/pcm", 16_000), ("audio/pcm", 0), ("audio/opus", None), ("", None)]
)
def test_a_format_that_there_is_not(type_: str, rate_hz: int | None) -> None:
    with pytest.raises(BadEvent) as error:
        find_format(type_, rate_hz, REALTIME_FORMATS, "session.audio.input.format")
    assert (error.value.event_code, error.value.param) == ("invalid_value", "session.audio.input.format")
    assert "audio/pcm at 24000 Hz" in error.value.message


@given(st.binary(max_size=100))
def test_bytes_come_back(raw: bytes) -> None:
    assert decode_audio(encode_audio(raw), AudioFormat.PCMU) == raw


@given(st.text(max_size=40))
def test_nothing_but_a_bad_event_is_raised(text: str) -> None:
    with contextlib.suppress(BadEvent):
        assert encode_audio(decode_audio(text, AudioFormat.PCM_24K)) == text


@pytest.mark.parametrize("text", ["A", "AAA", "====", "AA==AA==", "AAAA\n", "data:audio/wav;base64,AAAA", "ü"])
def test_what_is_not_base64(text: str) -> None:
    with pytest.raises(BadEvent, match="base64") as error:
        decode_audio(text, AudioFormat.PCMU)
    assert (error.value.event_code, error.value.param) == ("invalid_value", "audio")


def test_half_a_sample() -> None:
    with pytest.raises(BadEvent, match="odd"):
        decode_audio(encode_audio(b"abc"), AudioFormat.PCM_16K)
    assert decode_audio(encode_audio(b"abc"), AudioFormat.PCMA) == b"abc"
