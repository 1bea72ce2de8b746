"""The invitation to a room, as an address and as a picture."""

from __future__ import annotations

import io

import pytest
import segno

from rtc_server.errors import BadRequest
from rtc_server.rooms.invitation import link_of, qr_code

PAGE = "https://voice.example.org/rooms.html"


def test_it_is_the_pages_address_with_the_room() -> None:
    assert link_of(PAGE, "voice.example.org", "a-0-x_y") == f"{PAGE}#room=a-0-x_y"
    assert (
        link_of("http://[::1]:8080/under/rooms.html", "[::1]:8080", "x") == "http://[::1]:8080/under/rooms.html#room=x"
    )
    assert link_of(PAGE, "VOICE.example.org", "x y&z") == f"{PAGE}#room=x%20y%26z"


@pytest.mark.parametrize(
    "page",
    [
        "",
        "rooms.html",
        "//voice.example.org/rooms.html",
        "javascript://voice.example.org/%0Aalert(1)",
        "https://elsewhere.example.org/rooms.html",
        "https://voice.example.org@elsewhere.example.org/rooms.html",
        "https://user@voice.example.org/rooms.html",
        f"{PAGE}?key=secret",
        f"{PAGE}#room=another",
        f"{PAGE}/{'x' * 300}",
        "https://[voice.example.org/rooms.html",
        "https://voice.example.org/\u202erooms.html",
    ],
)
def test_nothing_but_a_page_of_this_server_is_printed(page: str) -> None:
    with pytest.raises(BadRequest):
        link_of(page, "voice.example.org", "x")


def test_the_picture_says_the_address() -> None:
    """Module by module what the standard's encoder makes of it, with a quiet zone of four."""
    link = f"{PAGE}#room=0-0-{'x' * 16}"
    size = segno.make(link, error="m", micro=False).symbol_size(border=4)[0]
    picture = qr_code(link)
    assert f'viewBox="0 0 {size} {size}"'.encode() in picture
    again = io.BytesIO()
    segno.make(link, error="m", micro=False).save(
        again, kind="svg", xmldecl=False, omitsize=True, border=4, light="#fff"
    )
    assert picture == again.getvalue()
    assert b"<script" not in picture
    assert picture != qr_code(link + "y")
