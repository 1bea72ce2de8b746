"""What the media plane and the engine say to each other survives the wire; anything else is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtc_server.engine import messages
from rtc_server.engine.messages import (
    PROTOCOL,
    Adopt,
    CannotMove,
    Close,
    Drain,
    Export,
    Exported,
    Fetch,
    Frame,
    FromEngine,
    Goodbye,
    Hello,
    Import,
    LoadFailed,
    Lock,
    Lost,
    MemoryChanged,
    NotFound,
    Open,
    Opened,
    OtherVersion,
    Output,
    Part,
    Ping,
    Pong,
    Put,
    Ready,
    Refused,
    Reset,
    StepDone,
    Stop,
    Stranger,
    Taken,
    ToEngine,
    decode_from_engine,
    decode_from_node,
    decode_to_engine,
    encode,
)
from rtc_server.engine.model import Example, MemoryUse, ModelInfo, PagesUse, ServiceKind

TO_ENGINE: list[ToEngine] = [
    Open(1),
    Frame(3, 2**40, 7, b"\x00\xff" * 3840),
    Frame(0, 1, 1, b""),
    Reset(3, 5),
    Close(3, 5),
    Ping(),
    Lock(3, 5, b"\x00\xff" * 16),
    Lock(3, 5, b"\x00\xff" * 16, b"\xff" * 1024),
    Adopt(7, b"\x00\xff" * 16),
    Export(3, 5),
    Fetch(3, 5, 2**31, 2**21),
    Import(7, "5a" * 16, 70_000),
    Put(3, 5, b"\x00\xff" * 24_576),
    Hello(1),
    Goodbye(),
    Drain(),
    Stop(),
]
FROM_ENGINE: list[FromEngine] = [
    *(Ready(ModelInfo("echo", kind, 64, "cuda:1", True, False)) for kind in ServiceKind),
    Ready(
        ModelInfo(
            "a",
            ServiceKind.DIALOGUE,
            1,
            "cpu",
            True,
            True,
            0.5,
            1.0,
            4,
            "Ä",
            "make",
            (Example("T", ("one", "two")),),
            ("en", "fr"),
            "5a" * 16,
        ),
        MemoryUse(2**34, 2**31, 5, 2**36, 2**37),
        0.25,
    ),
    MemoryChanged(MemoryUse(2**34, 2**31, 6, 0, 0)),
    LoadFailed("There is no such model.", "Check the name."),
    LoadFailed("There is no such model.", None),
    Opened(1, 3, 5),
    Opened(1, 3, 5, 70_000, b"\x00memo", 12.5),
    Refused(1),
    NotFound(1),
    Lost(3, 5),
    Exported(3, 5, 2**31, 70_000, 80_000),
    Part(3, 5, 2**30, b"\x00\xff" * 24_576),
    Taken(3, 5, 2**31, True),
    CannotMove(3, 5),
    CannotMove(3, 5, busy=True),
    OtherVersion(2),
    Stranger(),
    Pong(),
    Pong(17),
    Pong(1, PagesUse(230, 60, 2)),
    StepDone(0.0525, 0, []),
    StepDone(0.5, 3, [Output(0, 1, 9, b"\x01" * 7680, " Grüße 👋", (0.5, 0.25)), Output(1, 4, 2, None, "")], 9),
]

_INFO = {"name": "echo", "kind": "echo", "slots": 1, "device": "cpu", "speaks": True, "writes": True}


def test_what_a_model_is_has_its_names_on_the_wire() -> None:
    told = Ready(ModelInfo("echo", ServiceKind.ECHO, 1, "cpu", True, True))
    assert decode_from_engine(msgspec.msgpack.encode(["Ready", _INFO])) == told
    later = _INFO | {"something": ["that", "this", "release", "does", "not", "know"]}
    assert decode_from_engine(msgspec.msgpack.encode(["Ready", later])) == told


@pytest.mark.parametrize("message", TO_ENGINE, ids=lambda message: type(message).__name__)
def test_round_trip_to_the_engine(message: ToEngine) -> None:
    decoded = decode_to_engine(encode(message))
    assert decoded == message
    assert type(decoded) is type(message)


@pytest.mark.parametrize("message", FROM_ENGINE, ids=lambda message: type(message).__name__)
def test_round_trip_from_the_engine(message: FromEngine) -> None:
    decoded = decode_from_engine(encode(message))
    assert decoded == message
    assert type(decoded) is type(message)


def test_every_message_is_tried_here() -> None:
    assert {type(message) for message in TO_ENGINE} == set(get_args(messages.ToEngine))
    assert {type(message) for message in FROM_ENGINE} == set(get_args(messages.FromEngine))


def test_a_kind_is_a_kind_again_on_the_other_side() -> None:
    ready = decode_from_engine(encode(FROM_ENGINE[0]))
    assert isinstance(ready, Ready)
    assert isinstance(ready.info.kind, ServiceKind)


def test_a_frame_costs_little_more_than_its_samples() -> None:
    assert len(encode(Frame(3, 5, 7, b"\0" * 7680))) < 7680 + 32


@pytest.mark.parametrize("decode", [decode_to_engine, decode_from_engine])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        b"garbage",
        b"\x92\xa5\x80Open\x01",
        b"\x93\xa4Open\x01" + b"\x91" * 5000,
        encode(Frame(3, 5, 7, b"\0" * 100))[:-1],
        msgspec.msgpack.encode(["Shutdown"]),
        msgspec.msgpack.encode(["Open"]),
        msgspec.msgpack.encode(["Open", "one"]),
        msgspec.msgpack.encode(["Frame", 1, 1, 1, "text"]),
        msgspec.msgpack.encode(["Ready", {**_INFO, "kind": "opera"}]),
        msgspec.msgpack.encode(["Ready", {"name": "echo"}]),
        msgspec.msgpack.encode({"type": "Open", "stream": 1}),
        msgspec.msgpack.encode(None),
    ],
    ids=repr,
)
def test_garbage_is_refused(decode: Callable[[bytes], object], raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(raw)


@pytest.mark.parametrize("message", FROM_ENGINE, ids=lambda message: type(message).__name__)
def test_the_engine_is_not_told_what_it_says_itself(message: FromEngine) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_to_engine(encode(message))


@pytest.mark.parametrize("message", TO_ENGINE, ids=lambda message: type(message).__name__)
def test_the_media_plane_is_not_told_what_it_says_itself(message: ToEngine) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_from_engine(encode(message))


@pytest.mark.parametrize("message", TO_ENGINE, ids=lambda message: type(message).__name__)
def test_a_media_node_ends_no_engine(message: ToEngine) -> None:
    """Only the process that started it may."""
    if isinstance(message, Drain | Stop):
        with pytest.raises(msgspec.DecodeError):
            decode_from_node(encode(message))
    else:
        assert decode_from_node(encode(message)) == message


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_digest_has_its_length(size: int) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_from_node(encode(Lock(0, 1, b"x" * size)))


def _without_prose(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: _without_prose(part) for name, part in schema.items() if name != "description"}
    return [_without_prose(part) for part in schema] if isinstance(schema, list | tuple) else schema


def test_messages_that_have_changed_are_of_another_version() -> None:
    """Two machines may run two releases: the version tells. A change that an older release would misread wants a
    higher PROTOCOL, and then its schema here."""
    schemas, parts = msgspec.json.schema_components([messages.FromNode, messages.FromEngine])
    text = msgspec.json.encode(_without_prose([schemas, parts]), order="deterministic")
    assert {PROTOCOL: hashlib.sha256(text).hexdigest()[:16]} == {2: "ea11b63efa4fbf38"}


def test_what_was_added_at_the_end_of_a_message_an_older_release_does_not_see() -> None:
    """And what an older one does not say, is not there."""

    class Older(msgspec.Struct, frozen=True, tag="Pong", array_like=True):
        elsewhere: int = 0

    assert msgspec.msgpack.decode(encode(Pong(3, PagesUse(230, 9, 1))), type=Older) == Older(3)
    assert decode_from_engine(msgspec.msgpack.encode(Older(3))) == Pong(3)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_decode_errors(raw: bytes) -> None:
    for decode in (decode_to_engine, decode_from_node, decode_from_engine):
        try:
            decode(raw)
        except msgspec.DecodeError:
            continue


@settings(deadline=None)
@given(st.sampled_from([encode(message) for message in (*TO_ENGINE, *FROM_ENGINE)]), st.data())
def test_damaged_messages_raise_nothing_but_decode_errors(raw: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(raw)))
    damaged = raw[:at] + data.draw(st.binary(max_size=3)) + raw[at + data.draw(st.integers(0, 3)) :]
    for decode in (decode_to_engine, decode_from_node, decode_from_engine):
        try:
            decode(damaged)
        except msgspec.DecodeError:
            continue
