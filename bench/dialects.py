"""How each kind of server, and each of this one's doors, is offered to: where to post, what, and what is answered."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_JSON: Final = "application/json"
_EVENTS: Final = "oai-events"
_FIRST_SERVICE: Final = "gpt-realtime"
"""A name that every client of OpenAI's may use: the server's first service."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """``body`` makes the request's body of an offer's SDP, ``answer`` finds the SDP in that of the answer. ``channel``:
    the label of the data channel that a client makes."""

    path: str
    body: Callable[[str], str]
    answer: Callable[[str], str] = lambda body: str(json.loads(body)["sdp"])
    content_type: str = _JSON
    channel: str = "text"


def _offer(**more: Any) -> Callable[[str], str]:
    return lambda sdp: json.dumps({"sdp": sdp, "type": "offer"} | more)


def _fastrtc(sdp: str) -> str:
    return _offer(webrtc_id=uuid.uuid4().hex)(sdp)


def _live(sdp: str) -> str:
    return json.dumps({"session": {"model": _FIRST_SERVICE}, "transport": {"type": "webrtc", "sdp": sdp}})


DIALECTS: Final[Mapping[str, Dialect]] = {
    "rtc-server": Dialect("/api/offer", _offer()),
    "aiortc": Dialect("/offer", _offer()),
    "fastrtc": Dialect("/webrtc/offer", _fastrtc),
    "live-webrtc": Dialect(
        "/v1/live/sessions", _live, lambda body: str(json.loads(body)["transport"]["sdp"]), channel=_EVENTS
    ),
    "whip": Dialect("/whip/echo", str, str, "application/sdp"),
    "realtime-webrtc": Dialect("/v1/realtime/calls", str, str, "application/sdp", _EVENTS),
}
