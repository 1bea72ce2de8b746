"""How each kind of server wants to be offered to: where to post, and what to put into the body."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Dialect:
    """``body`` makes the request's JSON of an offer's SDP; all of them answer with ``sdp`` and ``type``."""

    path: str
    body: Callable[[str], dict[str, Any]]


def _plain(sdp: str) -> dict[str, Any]:
    return {"sdp": sdp, "type": "offer"}


def _echo_service(sdp: str) -> dict[str, Any]:
    return {"sdp": sdp, "type": "offer", "service": "echo"}


def _fastrtc(sdp: str) -> dict[str, Any]:
    return {"sdp": sdp, "type": "offer", "webrtc_id": uuid.uuid4().hex}


DIALECTS: Final = {
    "rtc-server": Dialect("/api/offer", _echo_service),
    "aiortc": Dialect("/offer", _plain),
    "fastrtc": Dialect("/webrtc/offer", _fastrtc),
}
