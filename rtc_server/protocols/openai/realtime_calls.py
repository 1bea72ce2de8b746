"""The offer of a Realtime call, as SDP alone or as a form with the session's settings. Bytes in, values out."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from rtc_server.errors import BadSdp, TooLarge, UnsupportedMediaType
from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.events import MAX_SDP_BYTES

SDP_TYPE: Final = "application/sdp"
FORM_TYPE: Final = "multipart/form-data"
CALL_PREFIX: Final = "rtc_"
_MAX_PARTS: Final = 8
_MAX_HEAD_BYTES: Final = 1024
_BOUNDARY: Final = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
"""RFC 2046, section 5.1.1: "boundary delimiters [...] no longer than 70 characters"."""
_PADDING: Final = re.compile(rb"[ \t]*\r\n")
_NAME: Final = re.compile(rb'^content-disposition:[^\r\n]*[;\s]name=(?:"([^"\r\n]*)"|([^\s;"]+))', re.I | re.M)


def read_call(content_type: str, body: bytes) -> tuple[str, dict[str, Any]]:
    """The SDP, and the session's settings, empty where there are none. ``content_type``: the whole header, which says
    how a form is cut.

    Raises UnsupportedMediaType, TooLarge, BadSdp, BadEvent.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == SDP_TYPE:
        return _text(body), {}
    if kind != FORM_TYPE:
        raise UnsupportedMediaType(f"{SDP_TYPE} or {FORM_TYPE}")
    parts = _parts(content_type, body)
    if "sdp" not in parts:
        raise BadEvent("missing_required_parameter", "Missing required parameter: 'sdp'.", "sdp")
    return _text(parts["sdp"]), _session(parts.get("session", b"{}"))


def _parts(content_type: str, body: bytes) -> dict[str, bytes]:
    """By name (RFC 7578). What cannot be read as a form has none.

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


def _text(raw: bytes) -> str:
    if len(raw) > MAX_SDP_BYTES:
        raise TooLarge(MAX_SDP_BYTES)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise BadSdp from None


def _session(raw: bytes) -> dict[str, Any]:
    try:
        session = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise BadEvent("invalid_json", "The session is not JSON.", "session") from None
    if not isinstance(session, dict):
        raise BadEvent("invalid_value", "It must be an object.", "session")
    return session
