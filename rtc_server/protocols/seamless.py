"""Seamless Chat's wire format: the forms and messages of its clients, and what they are answered. Pure.

Its languages are codes of ISO 639-3, its sound a list of numbers at 16 kHz. Owns the bounds of both
ways; knows nothing of rooms.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Final, Literal, TypeVar
from urllib.parse import parse_qs

import msgspec
import numpy as np

from rtc_server import audio
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.errors import BadMessage, BadRequest, MessageTooLarge, ServerError, UnsupportedMediaType
from rtc_server.protocols.forms import FORM_TYPE, read_parts
from rtc_server.protocols.rooms import MAX_TEXT

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
MAX_SOUND_S: Final = 30.0
"""Of a message, either way."""
_RATE_HZ: Final = 16_000
_TAIL_MS: Final = 20
"""Of silence behind the sound, which a resampler keeps back."""
_DIGITS: Final = 4
"""Of a sample: as exact as 14 bits, and half as long as all that a number has."""
_FORM: Final = "application/x-www-form-urlencoded"
_DATA_URL: Final = re.compile(r"data:[^,]{0,200};base64,")
_MOST_FIELDS: Final = 10
ANIMALS: Final = (
    *("Badger", "Beaver", "Bison", "Camel", "Crane", "Dolphin", "Donkey", "Eagle", "Falcon", "Fox", "Gazelle", "Goose"),
    *("Heron", "Ibex", "Jackdaw", "Koala", "Lark", "Lynx", "Magpie", "Marmot", "Moose", "Newt", "Otter", "Owl"),
    *("Panda", "Puffin", "Quail", "Raven", "Robin", "Salmon", "Seal", "Stork", "Swan", "Tapir", "Turtle", "Walrus"),
)
"""After which rooms are named."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Code = Annotated[str, msgspec.Meta(min_length=2, max_length=16)]


class Enter(msgspec.Struct, frozen=True):
    """The first message on a client's socket."""

    user_id: Id
    room_id: Id
    lang: Code


class Saying(msgspec.Struct, frozen=True):
    """Each further one. ``content``: a text, or a recording as a ``data:`` URL."""

    message_type: Literal["text", "audio"]
    content: str

    @property
    def text(self) -> str:
        """Raises BadMessage, MessageTooLarge."""
        text = self.content.strip()
        if not text:
            raise BadMessage("There is no text in the message.")
        if len(text) > MAX_TEXT:
            raise MessageTooLarge(MAX_TEXT)
        return text

    @property
    def recording(self) -> bytes:
        """The bytes of an audio file. Raises BadMessage."""
        beginning = _DATA_URL.match(self.content)
        if beginning is None:
            raise BadMessage("Audio comes as a data: URL in base64.")
        try:
            return base64.b64decode(self.content[beginning.end() :], validate=True)
        except binascii.Error:
            raise BadMessage("The audio is not in base64.") from None


_M = TypeVar("_M", bound=msgspec.Struct)
_enter: Final = msgspec.json.Decoder(Enter)
_saying: Final = msgspec.json.Decoder(Saying)


def read_enter(message: str | bytes) -> Enter:
    """Raises BadMessage."""
    return _read(_enter, message)


def read_saying(message: str | bytes) -> Saying:
    """Raises BadMessage."""
    return _read(_saying, message)


def _read(decoder: msgspec.json.Decoder[_M], message: str | bytes) -> _M:
    try:
        return decoder.decode(message)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise BadMessage from None


def read_form(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of a form. Raises UnsupportedMediaType, BadRequest."""
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == _FORM:
            fields = parse_qs(body.decode(), max_num_fields=_MOST_FIELDS)
            return {name: values[0] for name, values in fields.items()}
        if kind == FORM_TYPE:
            return {name: value.decode() for name, value in read_parts(content_type, body).items()}
    except ValueError:
        raise BadRequest("The form cannot be read.") from None
    raise UnsupportedMediaType(FORM_TYPE)


def encode_message(message_id: str, user: str, name: str, lang: str, text: str, pcm: FloatArray | None) -> str:
    """``lang``: of its sender. ``pcm``: at 24 kHz, to be heard by the reader, of which :data:`MAX_SOUND_S` are sent;
    None for a message without sound."""
    samples: list[float] = []
    if pcm is not None:
        tail = audio.silence(audio.ms_to_samples(_TAIL_MS))
        sound = np.concatenate((pcm[: round(MAX_SOUND_S * MODEL_RATE_HZ)], tail))
        heard = audio.Resampler(MODEL_RATE_HZ, _RATE_HZ).process(sound)
        samples = np.round(heard.astype(np.float64), _DIGITS).tolist()
    fields = {"messageId": message_id, "userId": user, "userName": name, "lang": lang, "text": text, "audio": samples}
    return msgspec.json.encode(fields).decode()


def encode_notice(server: str, lang: str, error: ServerError) -> str:
    """What went wrong, as a message of the server's own: clients show it, and programs find the error's code."""
    fields = {"messageId": "", "userId": "", "userName": server, "lang": lang, "text": error.message, "audio": []}
    return msgspec.json.encode(fields | {"error": error.code}).decode()
