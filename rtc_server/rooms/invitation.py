"""The invitation to a room: its address on a page, and that as a QR code. Pure."""

from __future__ import annotations

import functools
import io
from typing import Final
from urllib.parse import quote, urlsplit

import segno

from rtc_server.errors import BadRequest

MOST_PAGE: Final = 256
"""Characters of a page's address."""
_KEPT: Final = 64
"""Codes: making one takes some milliseconds."""


def link_of(page: str, host: str, room_id: str) -> str:
    """The address that opens a room. ``page``: that of the rooms' page, without query and fragment; it has to be at
    ``host``, where the request went: other sites' addresses are not ours to print. Raises BadRequest."""
    try:
        parts = urlsplit(page)
    except ValueError:
        raise BadRequest("page is no address.") from None
    ours = parts.scheme in ("http", "https") and parts.netloc.casefold() == host.casefold()
    if not ours or parts.query or parts.fragment or len(page) > MOST_PAGE or not page.isprintable():
        raise BadRequest(f"page must be the address of a page of this server, of at most {MOST_PAGE} characters.")
    return f"{page}#room={quote(room_id, safe='')}"


@functools.lru_cache(_KEPT)
def qr_code(link: str) -> bytes:
    """An SVG image, black on white, with the quiet zone that readers want."""
    made = io.BytesIO()
    code = segno.make(link, error="m", micro=False)
    code.save(made, kind="svg", xmldecl=False, omitsize=True, border=4, dark="#000", light="#fff")
    return made.getvalue()
