"""A response of OpenAI Realtime, and how it is written down: itself, its one item and the one part of that. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rtc_server.protocols.openai import realtime_items


@dataclass(slots=True)
class Response:
    """A stretch in which the model speaks or, without ``speaks``, writes.

    ``opened``: its item has begun. ``before``: the item that stands before its own. ``asked_at``: when the client asked
    for it; None for one that began by itself.
    """

    id: str
    item_id: str
    asked_at: float | None
    metadata: dict[str, Any] | None
    speaks: bool
    opened: bool = False
    transcript: str = ""
    frames: int = 0
    before: str | None = None

    @property
    def text_kind(self) -> str:
        """Of the events that tell what it says."""
        return "output_audio_transcript" if self.speaks else "output_text"

    def part(self, text: str) -> dict[str, Any]:
        return {"type": "audio", "transcript": text} if self.speaks else {"type": "text", "text": text}

    def item(self, status: str) -> dict[str, Any]:
        kind, name = ("output_audio", "transcript") if self.speaks else ("output_text", "text")
        return realtime_items.message(self.item_id, "assistant", [{"type": kind, name: self.transcript}], status)

    def as_dict(self, status: str, details: dict[str, Any] | None, output: list[dict[str, Any]]) -> dict[str, Any]:
        """All but what the session's settings say."""
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": details,
            "output": output,
            "max_output_tokens": "inf",
            "metadata": self.metadata,
        }


def usage(frames_in: int, frames_out: int) -> dict[str, Any]:
    """A frame of 80 ms is a token here, as it is a step of the model: what was heard since the last response, and what
    was said."""
    heard = {"text_tokens": 0, "audio_tokens": frames_in, "image_tokens": 0, "cached_tokens": 0}
    nothing = {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0}
    return {
        "total_tokens": frames_in + frames_out,
        "input_tokens": frames_in,
        "output_tokens": frames_out,
        "input_token_details": {**heard, "cached_tokens_details": nothing},
        "output_token_details": {"text_tokens": 0, "audio_tokens": frames_out},
    }
