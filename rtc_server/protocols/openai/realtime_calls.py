"""The offer of a Realtime call, as SDP alone or as a form with the session's settings. Bytes in, values out."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rtc_server.errors import BadSdp, TooLarge, UnsupportedMediaType
from rtc_server.protocols.forms import FORM_TYPE, read_parts
from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.events import MAX_SDP_BYTES

SDP_TYPE: Final = "application/sdp"
CALL_PREFIX: Final = "rtc_"


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
    parts = read_parts(content_type, body)
    if "sdp" not in parts:
        raise BadEvent("missing_required_parameter", "Missing required parameter: 'sdp'.", "sdp")
    return _text(parts["sdp"]), _session(parts.get("session", b"{}"))


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
