"""The offer of a Realtime call: forms as clients make them, and as strangers do."""

from __future__ import annotations

import contextlib
import json

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.errors import ServerError, TooLarge
from rtc_server.protocols.forms import FORM_TYPE
from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.events import MAX_CALL_BYTES, MAX_SDP_BYTES
from rtc_server.protocols.openai.realtime_calls import SDP_TYPE, read_call

SDP = "v=0\r\na=--not-a-boundary\r\n"
SESSION = {"type": "realtime", "model": "gpt-realtime", "instructions": "Sei nett, bitte: grüße.\r\n--b\r\n"}


def part(name: str, payload: str, *more: str, quote: str = '"') -> str:
    head = [f"Content-Disposition: form-data; name={quote}{name}{quote}", *more]
    return "--b\r\n" + "\r\n".join(head) + f"\r\n\r\n{payload}\r\n"


def form(*parts: str) -> bytes:
    return ("".join(parts) + "--b--\r\n").encode()


def test_the_sdp_alone() -> None:
    assert read_call(f"{SDP_TYPE}; charset=utf-8", SDP.encode()) == (SDP, {})


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        # FormData of a browser: names in quotes, a file name where there is a Blob.
        (
            f"{FORM_TYPE}; boundary=b",
            form(
                part("sdp", SDP),
                part("session", json.dumps(SESSION), 'Content-Type: application/json; charset="utf-8"'),
            ),
        ),
        (
            'Multipart/Form-Data;boundary="b"',
            form(
                "a preamble, which is no part\r\n",
                part("session", json.dumps(SESSION), quote=""),
                part("unheard_of", "x"),
                "--b\r\nCONTENT-TYPE: application/sdp\r\n"
                'CONTENT-DISPOSITION: form-data; filename="name=session"; name="sdp"\r\n\r\n' + SDP + "\r\n",
                part("sdp", "the second does not count"),
            ),
        ),
    ],
    ids=["a browser", "an odd one"],
)
def test_a_form(content_type: str, body: bytes) -> None:
    assert read_call(content_type, body) == (SDP, SESSION)


async def test_a_form_of_aiohttp() -> None:
    data = aiohttp.FormData()
    data.add_field("sdp", SDP, content_type=SDP_TYPE)
    data.add_field("session", json.dumps(SESSION), content_type="application/json")
    written = data()
    assert read_call(written.headers["Content-Type"], await written.as_bytes()) == (SDP, SESSION)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (FORM_TYPE, form(part("sdp", SDP))),
        (f"{FORM_TYPE}; boundary=", form(part("sdp", SDP))),
        (f"{FORM_TYPE}; boundary={'b' * 71}", form(part("sdp", SDP)).replace(b"--b", b"--" + b"b" * 71)),
        (f"{FORM_TYPE}; boundary=b", b""),
        (f"{FORM_TYPE}; boundary=b", b"--b--\r\n"),
        (f"{FORM_TYPE}; boundary=b", b"--b"),
        (f"{FORM_TYPE}; boundary=b", form("--b\r\n\r\nno head\r\n")),
        (f"{FORM_TYPE}; boundary=b", form(*[part(f"x{number}", "") for number in range(8)], part("sdp", SDP))),
        (f"{FORM_TYPE}; boundary=b", form(part("sdp\r\n", SDP))),
    ],
    ids=[
        "no boundary",
        "an empty one",
        "a long one",
        "empty",
        "no part",
        "cut off",
        "no head",
        "many parts",
        "no name",
    ],
)
def test_a_form_without_an_offer(content_type: str, body: bytes) -> None:
    with pytest.raises(BadEvent) as refused:
        read_call(content_type, body)
    assert (refused.value.event_code, refused.value.param) == ("missing_required_parameter", "sdp")


def test_an_offer_that_is_too_large() -> None:
    for content_type, body in (
        (SDP_TYPE, b"x" * (MAX_SDP_BYTES + 1)),
        (f"{FORM_TYPE}; boundary=b", form(part("sdp", "x" * (MAX_SDP_BYTES + 1)))),
    ):
        with pytest.raises(TooLarge):
            read_call(content_type, body)


@pytest.mark.parametrize(
    "piece",
    [
        "Content-Type: message/rfc822\r\n\r\n",
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n",
        "--b\r\n",
        "\r\n--b\r\n\r\n\r\n",
        'Content-Disposition: form-data; name="',
        "Content-Disposition: form-data; " + "(" * 1000 + "\r\n",
        "Content-Disposition: form-data; name*0=a; name*1=b; ",
        "content-disposition:;name=",
    ],
)
def test_what_strangers_nest_is_not_followed(piece: str) -> None:
    """As much of it as may come: a parser of mail gives up within it, or takes seconds."""
    body = f"--b\r\n{piece * (MAX_CALL_BYTES // len(piece))}".encode()
    with pytest.raises(BadEvent):
        read_call(f"{FORM_TYPE}; boundary=b", body)


@given(st.text(max_size=80), st.binary(max_size=200))
def test_nothing_but_a_typed_error_is_raised(boundary: str, body: bytes) -> None:
    for content_type in (f"{FORM_TYPE}; boundary={boundary}", f"{FORM_TYPE}; boundary=b"):
        for raw in (body, b"--b\r\n" + body, form(part("sdp", SDP), part("session", body.decode("latin-1")))):
            with contextlib.suppress(ServerError):
                sdp, session = read_call(content_type, raw)
                assert isinstance(sdp, str)
                assert isinstance(session, dict)
