"""The offer of a Realtime call, as SDP alone or as a form with the session's settings. Bytes in, values out."""

from __future__ import annotations

import email.parser
import email.policy
from typing import Any, Final

import msgspec

from rtc_server.errors import BadSdp, UnsupportedMediaType
from rtc_server.protocols.openai.errors import BadEvent

SDP_TYPE: Final = "application/sdp"
FORM_TYPE: Final = "multipart/form-data"
CALL_PREFIX: Final = "rtc_"
_MAX_PARTS: Final = 8


def read_call(content_type: str, body: bytes) -> tuple[str, dict[str, Any]]:
    """The SDP, and the session's settings, empty where there are none. ``content_type``: the whole header, which says
    how a form is cut.

    Raises UnsupportedMediaType, BadSdp, BadEvent.
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
    """By name (RFC 7578). What cannot be read as a form has none."""
    head = b"Content-Type: " + content_type.encode("latin-1", "replace") + b"\r\n\r\n"
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    found: dict[str, bytes] = {}
    for part in form.iter_parts() if form.is_multipart() else ():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes) and len(found) < _MAX_PARTS:
            found.setdefault(name, payload)
    return found


def _text(raw: bytes) -> str:
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
