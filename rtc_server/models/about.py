"""Reads ``about.json`` of a checkpoint directory: the model's notice, phrases to try, and the languages that it hears.

Owns the file's format and its bounds, and which languages the published models hear that have no such file. What it
says is shown to people, never run; a file that is not as ``docs/protocol.md`` has it counts as none, for a model can do
without.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec

from rtc_server.engine.model import Example

logger = logging.getLogger(__name__)

FILE_NAME: Final = "about.json"
MAX_BYTES: Final = 65_536

_Topic = Annotated[str, msgspec.Meta(min_length=1, max_length=60)]
_Phrase = Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
_Sentences = Annotated[str, msgspec.Meta(max_length=400)]
_Language = Annotated[str, msgspec.Meta(pattern="^[a-z]{2,3}$")]
_KYUTAI_STT: Final = re.compile(r"(?:.*/)?stt-[\d.]+b-([a-z]{2}(?:_[a-z]{2})*)(?:-.*)?")
"""Kyutai's names of models that transcribe (``kyutai/stt-1b-en_fr``) end in their languages."""
_KYUTAI_OTHERS: Final = {
    "moshiko": ("en",),
    "moshika": ("en",),
    "hibiki-1b": ("fr",),
    "hibiki-2b": ("fr",),
    "hibiki-zero": ("fr", "es", "pt", "de"),
}
"""What its other models hear."""


@dataclass(frozen=True, slots=True)
class About:
    """Each field as in :class:`rtc_server.engine.model.ModelInfo`."""

    notice: str = ""
    hint: str = ""
    examples: tuple[Example, ...] = ()
    languages: tuple[str, ...] = ()


class _Example(msgspec.Struct, frozen=True):
    topic: _Topic
    say: Annotated[list[_Phrase], msgspec.Meta(min_length=1, max_length=12)]


class _File(msgspec.Struct, frozen=True):
    """Names that are not known are left out: a later version may have more."""

    notice: _Sentences = ""
    hint: _Sentences = ""
    examples: Annotated[list[_Example], msgspec.Meta(max_length=24)] = []
    languages: Annotated[list[_Language], msgspec.Meta(max_length=100)] = []

    def strings(self) -> Iterator[str]:
        yield from (self.notice, self.hint)
        for example in self.examples:
            yield example.topic
            yield from example.say


def read_about(directory: Path) -> About:
    """Read ``about.json``; empty where there is none. One that cannot be used is logged."""
    try:
        with (directory / FILE_NAME).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        return parse_about(raw)
    except FileNotFoundError:
        return About()
    except (OSError, ValueError) as error:
        logger.warning("%s of %s is left out: %s", FILE_NAME, directory.name, error)
        return About()


def parse_about(raw: bytes) -> About:
    """Raises ValueError, with a sentence, for anything but an ``about.json``."""
    if len(raw) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    try:
        file = msgspec.json.decode(raw, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    for text in file.strings():
        if text != text.strip() or any(unicodedata.category(character) == "Cc" for character in text):
            # It goes to terminals, too.
            raise ValueError("a text has space around it or control characters in it")
    examples = tuple(Example(each.topic, tuple(each.say)) for each in file.examples)
    return About(file.notice, file.hint, examples, tuple(file.languages))


def languages_of(name: str, about: About) -> tuple[str, ...]:
    """The languages that the model with the public ``name`` hears: those that ``about`` tells, else those that its
    name does; empty where neither does."""
    if about.languages:
        return about.languages
    if found := _KYUTAI_STT.fullmatch(name):
        return tuple(found[1].split("_"))
    base = name.rpartition("/")[2]
    return next((languages for start, languages in _KYUTAI_OTHERS.items() if base.startswith(f"{start}-")), ())
