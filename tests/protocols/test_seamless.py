"""Seamless Chat's messages: what its clients send within bounds, what they get, and in which order."""

from __future__ import annotations

import base64
import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.audio import MODEL_RATE_HZ
from rtc_server.errors import BadMessage, BadRequest, MessageTooLarge, NotAudio, UnsupportedMediaType
from rtc_server.protocols import seamless
from rtc_server.protocols.room_order import PATIENCE_S, InOrder
from rtc_server.protocols.rooms import RoomMessage, State
from rtc_server.protocols.seamless import Enter, Saying


def test_what_a_client_sends() -> None:
    entering = '{"user_id": "u", "room_id": "r", "lang": "eng", "more": 1}'
    assert seamless.read_enter(entering) == Enter("u", "r", "eng")
    assert seamless.read_saying('{"message_type": "text", "content": " hello "}').text == "hello"
    content = "data:audio/webm;codecs=opus;base64," + base64.b64encode(b"\0sound").decode()
    assert Saying("audio", content).recording == b"\0sound"


@pytest.mark.parametrize("content", ["", "AAAA", "data:audio/webm,AAAA", "data:audio/webm;base64,!", "data:,;base64,é"])
def test_what_is_no_recording(content: str) -> None:
    with pytest.raises(BadMessage):
        _ = Saying("audio", content).recording


def test_texts_have_bounds() -> None:
    with pytest.raises(BadMessage):
        _ = Saying("text", " \n").text
    with pytest.raises(MessageTooLarge):
        _ = Saying("text", "x" * 2001).text


@given(st.one_of(st.text(), st.binary()))
def test_all_else_is_refused(message: str | bytes) -> None:
    for read in (seamless.read_enter, seamless.read_saying):
        with contextlib.suppress(BadMessage):
            read(message)


@given(st.text(), st.binary())
def test_a_form_is_read_or_refused(content_type: str, body: bytes) -> None:
    for kind in (content_type, "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"):
        with contextlib.suppress(BadRequest):
            assert all(isinstance(value, str) for value in seamless.read_form(kind, body).values())


def test_forms() -> None:
    assert seamless.read_form("application/x-www-form-urlencoded", b"user_name=Z%C3%A9&lang=por") == {
        "user_name": "Zé",
        "lang": "por",
    }
    part = '--b\r\nContent-Disposition: form-data; name="lang"\r\n\r\npor\r\n--b--\r\n'
    assert seamless.read_form("multipart/form-data; boundary=b", part.encode()) == {"lang": "por"}
    with pytest.raises(UnsupportedMediaType):
        seamless.read_form("application/json", b"{}")


def test_a_message_has_six_fields_and_so_much_sound_at_most() -> None:
    tone = np.full(40 * MODEL_RATE_HZ, 0.25, np.float32)
    message = json.loads(seamless.encode_message("1", "u", "Ann", "eng", "hello", tone))
    assert {key: value for key, value in message.items() if key != "audio"} == {
        "messageId": "1",
        "userId": "u",
        "userName": "Ann",
        "lang": "eng",
        "text": "hello",
    }
    assert len(message["audio"]) == pytest.approx(30 * 16_000, abs=400)
    assert message["audio"][16_000] == pytest.approx(0.25, abs=0.01)
    assert json.loads(seamless.encode_message("1", "u", "Ann", "eng", "hello", None))["audio"] == []


def test_what_went_wrong_is_a_message_of_the_servers() -> None:
    notice = json.loads(seamless.encode_notice("Fox", "eng", NotAudio()))
    assert (notice["userName"], notice["error"], notice["audio"]) == ("Fox", "not_audio", [])
    assert notice["text"] == NotAudio.message


def message(number: int, state: State, text: str = "") -> RoomMessage:
    return RoomMessage(str(number), "m1", "Ann", "en", "text", text, text, state, None, None, 0)


def gone(order: InOrder, number: int, state: State, now: float = 0.0) -> list[str]:
    return [each.id for each in order.take(message(number, state), now)]


def test_messages_go_once_in_the_order_in_which_they_were_said() -> None:
    order = InOrder(2)
    come: list[tuple[int, State]] = [(2, "ready"), (3, "pending"), (4, "ready"), (4, "ready"), (3, "failed")]
    assert [gone(order, *each) for each in come] == [[], [], [], [], ["3", "4"]]
    assert [gone(order, 3, "ready"), gone(order, 5, "ready")] == [[], ["5"]]


def test_a_message_of_which_nothing_becomes_holds_up_no_other_for_ever() -> None:
    order = InOrder(0)
    assert gone(order, 1, "pending") == gone(order, 2, "ready", PATIENCE_S - 1) == []
    assert gone(order, 3, "ready", PATIENCE_S) == ["2", "3"]
