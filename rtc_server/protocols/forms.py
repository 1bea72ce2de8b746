"""Forms as browsers and programs send them (RFC 7578). Bytes in, parts out."""

from __future__ import annotations

import re
from typing import Final

FORM_TYPE: Final = "multipart/form-data"
_MAX_PARTS: Final = 8
_MAX_HEAD_BYTES: Final = 1024
_BOUNDARY: Final = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
"""RFC 2046, section 5.1.1: "boundary delimiters [...] no longer than 70 characters"."""
_PADDING: Final = re.compile(rb"[ \t]*\r\n")
_NAME: Final = re.compile(rb'^content-disposition:[^\r\n]*[;\s]name=(?:"([^"\r\n]*)"|([^\s;"]+))', re.I | re.M)


def read_parts(content_type: str, body: bytes) -> dict[str, bytes]:
    """The parts by name. What cannot be read as a form has none.

    In one pass, and no deeper: a parser of mail follows whatever a stranger nests, and its structured headers.
    """
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        return {}
    delimiter = b"\r\n--" + (boundary[1] or boundary[2]).encode("latin-1", "replace")
    found: dict[str, bytes] = {}
    for part in (b"\r\n" + body).split(delimiter, _MAX_PARTS + 1)[1 : _MAX_PARTS + 1]:
        head, gap, payload = part.partition(b"\r\n\r\n")
        if not gap or _PADDING.match(part) is None:  # the end of the form, or no part of one
            break
        name = _NAME.search(head[:_MAX_HEAD_BYTES])
        if name is not None:
            found.setdefault((name[1] or name[2] or b"").decode("latin-1"), payload)
    return found
