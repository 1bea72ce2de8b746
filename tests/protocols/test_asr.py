"""The messages of /api/asr-streaming, as Kyutai's clients write and read them, and nothing else gets through."""

from __future__ import annotations

import struct

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.errors import BadMessage, MessageTooLarge
from rtc_server.protocols import asr

# What msgpack 1.1 makes of these with use_single_float, as Kyutai's scripts call it.
GOLDEN_IN: list[tuple[dict[str, object], str, asr.ClientMessage]] = [
    ({"type": "Init"}, "81a474797065a4496e6974", asr.Init()),
    ({"type": "Marker", "id": 0}, "82a474797065a64d61726b6572a2696400", asr.Marker(0)),
    (
        {"type": "Marker", "id": -(2**63)},
        "82a474797065a64d61726b6572a26964d38000000000000000",
        asr.Marker(-(2**63)),
    ),
    (
        {"type": "Audio", "pcm": [0.0, 0.5, -1.0]},
        "82a474797065a5417564696fa370636d93ca00000000ca3f000000cabf800000",
        asr.Audio(np.array([0.0, 0.5, -1.0], dtype=np.float32)),
    ),
    (
        {"type": "OggOpus", "data": b"OggS"},
        "82a474797065a74f67674f707573a464617461c4044f676753",
        asr.OggOpus(b"OggS"),
    ),
]
# The field names and types of moshi-server's OutMsg, in a map that begins with the tag.
GOLDEN_OUT: list[tuple[asr.ServerMessage, dict[str, object], str]] = [
    (asr.Ready(), {"type": "Ready"}, "81a474797065a55265616479"),
    (
        asr.Word("été", 1.5),
        {"type": "Word", "text": "été", "start_time": 1.5},
        "83a474797065a4576f7264a474657874a5c3a974c3a9aa73746172745f74696d65cb3ff8000000000000",
    ),
    (
        asr.EndWord(2.0),
        {"type": "EndWord", "stop_time": 2.0},
        "82a474797065a7456e64576f7264a973746f705f74696d65cb4000000000000000",
    ),
    (asr.Marker(7), {"type": "Marker", "id": 7}, "82a474797065a64d61726b6572a2696407"),
    (
        asr.Step(3, (0.5, 0.25), 1920),
        {"type": "Step", "step_idx": 3, "prs": [0.5, 0.25], "buffered_pcm": 1920},
        "84a474797065a453746570a8737465705f69647803a370727392cb3fe0000000000000cb3fd0000000000000"
        "ac62756666657265645f70636dcd0780",
    ),
    (
        asr.Error("no free channels"),
        {"type": "Error", "message": "no free channels"},
        "82a474797065a54572726f72a76d657373616765b06e6f2066726565206368616e6e656c73",
    ),
]


def packed(message: object, single: bool = True) -> bytes:
    raw = msgpack.packb(message, use_single_float=single)
    assert isinstance(raw, bytes)
    return raw


def pcm_of(raw: bytes) -> list[float]:
    message = asr.parse_client_message(raw)
    assert isinstance(message, asr.Audio)
    assert message.pcm.dtype == np.float32
    assert message.pcm.ndim == 1
    return [float(sample) for sample in message.pcm]


def same(one: asr.ClientMessage, other: asr.ClientMessage) -> bool:
    if isinstance(one, asr.Audio) and isinstance(other, asr.Audio):
        return np.array_equal(one.pcm, other.pcm)
    return one == other


@pytest.mark.parametrize(("written", "golden", "meant"), GOLDEN_IN, ids=lambda value: str(value)[:40])
def test_what_clients_write(written: dict[str, object], golden: str, meant: asr.ClientMessage) -> None:
    raw = bytes.fromhex(golden)
    assert packed(written) == raw
    assert same(asr.parse_client_message(raw), meant)


@pytest.mark.parametrize(("message", "read", "golden"), GOLDEN_OUT, ids=lambda value: str(value)[:40])
def test_what_clients_read(message: asr.ServerMessage, read: dict[str, object], golden: str) -> None:
    raw = asr.encode_server_message(message)
    assert raw == bytes.fromhex(golden)
    assert msgpack.unpackb(raw) == read
    assert next(iter(msgpack.unpackb(raw))) == "type"
    assert asr.parse_server_message(raw) == message


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=50))
def test_single_and_double_precision_are_the_same_audio(samples: list[float]) -> None:
    message = {"type": "Audio", "pcm": samples}
    assert pcm_of(packed(message)) == samples
    assert pcm_of(packed(message, single=False)) == samples


@given(st.lists(st.integers(-(2**63), 2**64 - 1) | st.floats(width=32), max_size=50))
def test_numbers_of_all_kinds_are_audio(samples: list[float]) -> None:
    """Silence is written as whole numbers, too."""
    np.testing.assert_array_equal(
        pcm_of(packed({"type": "Audio", "pcm": samples})), np.array(samples, dtype=np.float64).astype(np.float32)
    )


@given(st.lists(st.floats(width=32), max_size=2000))
def test_our_own_client_writes_the_same_audio(samples: list[float]) -> None:
    pcm = np.array(samples, dtype=np.float32)
    raw = asr.encode_client_message(asr.Audio(pcm))
    np.testing.assert_array_equal(np.array(pcm_of(raw), dtype=np.float32), pcm)
    assert msgpack.unpackb(raw)["type"] == "Audio"


@pytest.mark.parametrize("message", [asr.Init(), asr.Marker(5), asr.OggOpus(b"\x00\xff")])
def test_our_own_client_is_understood(message: asr.ClientMessage) -> None:
    assert asr.parse_client_message(asr.encode_client_message(message)) == message


def test_audio_that_is_no_number_gets_through_to_be_cleaned() -> None:
    heard = pcm_of(packed({"type": "Audio", "pcm": [float("nan"), float("inf"), 1e300, -1e300]}, single=False))
    assert np.isnan(heard[0])
    assert heard[1:] == [np.inf, np.inf, -np.inf]


def test_bytes_may_be_an_array_of_numbers() -> None:
    """As serde writes a Vec<u8>."""
    assert asr.parse_client_message(packed({"type": "OggOpus", "data": [0, 79, 255]})) == asr.OggOpus(b"\x00O\xff")


def test_fields_come_in_any_order_and_others_are_ignored() -> None:
    assert asr.parse_client_message(packed({"id": 3, "new": {"a": [1]}, "type": "Marker"})) == asr.Marker(3)


@pytest.mark.parametrize("single", [True, False])
def test_ten_seconds_of_audio_are_the_most(single: bool) -> None:
    samples = [0.25] * asr.MAX_SAMPLES
    assert len(pcm_of(packed({"type": "Audio", "pcm": samples}, single))) == asr.MAX_SAMPLES
    with pytest.raises(BadMessage):
        asr.parse_client_message(packed({"type": "Audio", "pcm": [*samples, 0.25]}, single))
    with pytest.raises(BadMessage):
        asr.parse_client_message(packed({"type": "Audio", "pcm": [0] * (asr.MAX_SAMPLES + 1)}))


def test_messages_have_a_size() -> None:
    with pytest.raises(MessageTooLarge):
        asr.parse_client_message(bytes(asr.MAX_MESSAGE_BYTES + 1))


@pytest.mark.parametrize(
    "message",
    [
        *({}, [], 7, None, "Init", {"type": "Nope"}, {"type": 3}, {"type": None}, {"id": 1}, {1: 2}),
        *({"type": "Marker"}, {"type": "Marker", "id": "1"}, {"type": "Marker", "id": 1.5}),
        *({"type": "Marker", "id": 2**63}, {"type": "Marker", "id": True}, {"type": "Marker", "id": None}),
        *({"type": "Audio"}, {"type": "Audio", "pcm": None}, {"type": "Audio", "pcm": b"\x00" * 8}),
        *({"type": "Audio", "pcm": 1.0}, {"type": "Audio", "pcm": ["1"]}, {"type": "Audio", "pcm": [0.5, True]}),
        *({"type": "Audio", "pcm": [[0.5]]}, {"type": "Audio", "pcm": {"0": 0.5}}, {"type": "Audio", "pcm": [None]}),
        *({"type": "OggOpus"}, {"type": "OggOpus", "data": "OggS"}, {"type": "OggOpus", "data": [256]}),
        *({"type": "OggOpus", "data": [-1]}, {"type": "OggOpus", "data": [0.5]}, {"type": "OggOpus", "data": None}),
        *({"type": "Ready"}, {"type": "Word", "text": "a", "start_time": 0.0}),
    ],
    ids=str,
)
def test_what_is_no_message(message: object) -> None:
    with pytest.raises(BadMessage):
        asr.parse_client_message(packed(message))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        b"hello",
        b'{"type":"Init"}',
        b"\x81\xa4type\xa6Mar\xff\xfeer",
        b"\x81\xa4type\xa4Init\x00",  # more follows
        b"\xdf\xff\xff\xff\xff",  # a map of four thousand million entries
        b"\x82\xa4type\xa5Audio\xa3pcm\xdd\xff\xff\xff\xff",  # and as many samples
        b"\x82\xa4type\xa7OggOpus\xa4data\xdd\xff\xff\xff\xff",
        b"\x82\xa4type\xa7OggOpus\xa4data\xc6\xff\xff\xff\xff",
        b"\x82\xa4type\xa5Audio\xa3pcm" + b"\x91" * 100_000,  # arrays in arrays
    ],
    ids=lambda raw: raw[:24].hex(),
)
def test_what_is_no_msgpack(raw: bytes) -> None:
    with pytest.raises(BadMessage):
        asr.parse_client_message(raw)
    with pytest.raises(BadMessage):
        asr.parse_server_message(raw)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(raw: bytes) -> None:
    for parse in (asr.parse_client_message, asr.parse_server_message):
        try:
            parse(raw)
        except BadMessage:
            continue


@given(st.sampled_from(GOLDEN_IN), st.integers(0, 200), st.binary(min_size=1, max_size=4))
def test_a_message_with_a_wound_is_a_message_or_an_error(
    golden: tuple[dict[str, object], str, asr.ClientMessage], at: int, wound: bytes
) -> None:
    raw = bytearray.fromhex(golden[1])
    at %= len(raw)
    raw[at : at + len(wound)] = wound
    try:
        message = asr.parse_client_message(bytes(raw))
    except BadMessage:
        return
    # What it was taken for is what msgpack reads, whichever way the numbers went in.
    read = msgpack.unpackb(bytes(raw), strict_map_key=False, raw=True)
    assert read[b"type"].decode() == type(message).__struct_config__.tag
    if isinstance(message, asr.Audio):
        np.testing.assert_array_equal(message.pcm, np.array(read[b"pcm"], dtype=np.float64).astype(np.float32))


def test_arrays_of_all_sizes_have_their_headers_read() -> None:
    for count in (0, 1, 15, 16, 65_535, 65_536):
        assert len(pcm_of(packed({"type": "Audio", "pcm": [0.5] * count}))) == count
    # An array may have a longer header than it needs.
    body = struct.pack(">Bf", 0xCA, 0.5)
    for header in (b"\x91", b"\xdc\x00\x01", b"\xdd\x00\x00\x00\x01"):
        assert pcm_of(b"\x82\xa4type\xa5Audio\xa3pcm" + header + body) == [0.5]


def test_five_bytes_a_number_are_not_single_precision_for_all_that() -> None:
    """Integers of 32 bits are as long."""
    assert pcm_of(packed({"type": "Audio", "pcm": [2**20, 2**21]})) == [2.0**20, 2.0**21]
    mixed = b"\x82\xa4type\xa5Audio\xa3pcm\x92" + struct.pack(">Bf", 0xCA, 0.5) + msgspec.msgpack.encode(2**20)
    assert pcm_of(mixed) == [0.5, 2.0**20]
