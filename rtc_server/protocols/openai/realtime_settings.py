"""What a Realtime session is set to: what a client may change of it, and how it is described to the client. Pure.

Only the formats, the turn detection and the modalities have an effect here; all other settings are kept and described
as they were given, for clients compare them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.events import require_shallow
from rtc_server.protocols.openai.formats import REALTIME_FORMATS, AudioFormat, find_format

_TRANSCRIPTION: Final = "transcription"
TYPES: Final = ("realtime", _TRANSCRIPTION)
_OBJECTS: Final = {"realtime": "realtime.session", _TRANSCRIPTION: "realtime.transcription_session"}
_KEPT: Final[Mapping[str, Any]] = {
    "instructions": "",
    "tools": [],
    "tool_choice": "auto",
    "max_output_tokens": "inf",
    "tracing": None,
    "prompt": None,
    "truncation": "auto",
    "include": None,
}
"""Names and defaults of settings without an effect. What else a client sends is not kept."""
_MODALITIES: Final = (["audio"], ["text"])
_VAD: Final[Mapping[str, Any]] = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
_SEMANTIC_VAD: Final[Mapping[str, Any]] = {
    "type": "semantic_vad",
    "eagerness": "auto",
    "create_response": True,
    "interrupt_response": True,
}
_DEFAULTS: Final = {"server_vad": _VAD, "semantic_vad": _SEMANTIC_VAD}
_VOICE: Final = "default"


class RealtimeSettings:
    """One session's. ``type_``: one of :data:`TYPES`, the first unless it is given. ``expires_at``: in seconds since
    1970."""

    def __init__(self, session_id: str, model: str, expires_at: int, type_: str | None = None) -> None:
        self.model = model
        self.input_format = self.output_format = AudioFormat.PCM_24K
        self.modalities = ["audio"]
        self.turn_detection: dict[str, Any] | None = dict(_VAD)
        self._type = type_ if type_ in TYPES else TYPES[0]
        self._id = session_id
        self._expires_at = expires_at
        self._voice: Any = _VOICE
        self._speed: Any = 1.0
        self._transcription: Any = None
        self._noise_reduction: Any = None
        self._kept = dict(_KEPT)

    @property
    def speaks(self) -> bool:
        """Whether the client wants the model's voice; else its words alone."""
        return self.modalities == ["audio"]

    @property
    def transcribes(self) -> bool:
        """Whether the client wants the words of its user."""
        return self._type == _TRANSCRIPTION or self._transcription is not None

    def update(self, session: Mapping[str, Any]) -> None:
        """Take what a client sets, all or nothing. Raises BadEvent, which names the first value that cannot be."""
        require_shallow(session, "session")
        if session.get("type", self._type) not in TYPES:  # what it is was said by the model
            raise BadEvent("invalid_value", f"There are sessions of these types: {', '.join(TYPES)}.", "session.type")
        modalities = session.get("output_modalities", self.modalities)
        if modalities not in _MODALITIES:
            raise BadEvent("invalid_value", 'It is ["audio"] or ["text"].', "session.output_modalities")
        audio = _table(session, "audio", "session.audio")
        heard, said = _table(audio, "input", "session.audio.input"), _table(audio, "output", "session.audio.output")
        input_format = _format(heard, self.input_format, "session.audio.input.format")
        output_format = _format(said, self.output_format, "session.audio.output.format")
        turn_detection = self._turn_detection(heard)
        # Nothing can be wrong from here on.
        self.modalities = list(modalities)
        self.input_format, self.output_format, self.turn_detection = input_format, output_format, turn_detection
        self._transcription = heard.get("transcription", self._transcription)
        self._noise_reduction = heard.get("noise_reduction", self._noise_reduction)
        self._voice = said.get("voice") or self._voice
        self._speed = said.get("speed") or self._speed
        self._kept |= {name: session[name] for name in _KEPT if name in session}

    def as_dict(self) -> dict[str, Any]:
        """The whole session, as ``session.created`` and ``session.updated`` have it."""
        return {
            "type": self._type,
            "object": _OBJECTS[self._type],
            "id": self._id,
            "model": self.model,
            "output_modalities": self.modalities,
            "audio": {
                "input": {
                    "format": _described(self.input_format),
                    "turn_detection": self.turn_detection,
                    "transcription": self._transcription,
                    "noise_reduction": self._noise_reduction,
                },
                "output": {"format": _described(self.output_format), "voice": self._voice, "speed": self._speed},
            },
            **self._kept,
            "expires_at": self._expires_at,
        }

    def audio_output(self) -> dict[str, Any]:
        """As a response has it."""
        return {"output": {"format": _described(self.output_format), "voice": self._voice}}

    def _turn_detection(self, heard: Mapping[str, Any]) -> dict[str, Any] | None:
        if "turn_detection" not in heard:
            return self.turn_detection
        if heard["turn_detection"] is None:
            return None
        given = _table(heard, "turn_detection", "session.audio.input.turn_detection")
        type_ = given.get("type", "server_vad")
        if not isinstance(type_, str) or type_ not in _DEFAULTS:
            known = ", ".join(_DEFAULTS)
            raise BadEvent("invalid_value", f"It is one of: {known}.", "session.audio.input.turn_detection.type")
        return {**_DEFAULTS[type_], **given}


def _table(outer: Mapping[str, Any], name: str, param: str) -> Mapping[str, Any]:
    """An object within another, empty where there is none."""
    value = outer.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadEvent("invalid_value", "It must be an object.", param)
    return value


def _format(audio: Mapping[str, Any], now: AudioFormat, param: str) -> AudioFormat:
    given = _table(audio, "format", param)
    if not given:
        return now
    type_, rate_hz = given.get("type"), given.get("rate")
    if not isinstance(type_, str):
        raise BadEvent("missing_required_parameter", f"Missing required parameter: '{param}.type'.", f"{param}.type")
    if rate_hz is not None and not isinstance(rate_hz, int):
        raise BadEvent("invalid_value", "It must be a whole number.", f"{param}.rate")
    return find_format(type_, rate_hz, REALTIME_FORMATS, param)


def _described(audio_format: AudioFormat) -> dict[str, str | int]:
    """Telephone formats are described without a rate: they have one."""
    whole = audio_format.as_dict()
    return whole if audio_format is AudioFormat.PCM_24K else {"type": audio_format.type}
