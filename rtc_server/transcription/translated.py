"""Translates the transcript of a recording, passage by passage, and puts the translations where the passages were.

Owns how a transcript is cut for a translator, and how long a failed passage is tried. Knows no files and no terminal.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from rtc_server.errors import EngineFailed, EngineUnavailable, Overloaded, ServerError, TranslationLate
from rtc_server.transcription.captions import TimedWord, Transcript, Turn
from rtc_server.translation.client import Translator
from rtc_server.translation.model import Translation, Utterance

LONGEST_MS: Final = 15_000
"""Of a passage, as of an utterance in a room."""
MOST_CHARS: Final = 400
_PAUSE_MS: Final = 700
_SENTENCE_ENDS: Final = (".", "?", "!", "…", "。", "？", "！")
_AT_ONCE: Final = 8
"""Passages that the translator has at a time."""
_RESTART_S: Final = 60.0
"""For which a passage waits for a translator that is being restarted."""
_PASSING: Final = (EngineFailed, EngineUnavailable, Overloaded, TranslationLate)
"""With these a second try may help."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What is translated as a whole: it ends with a sentence, at a pause, or where it is long enough."""

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A passage, and what became of it."""

    passage: Passage
    outcome: Translation | ServerError

    @property
    def text(self) -> str:
        """In the other language; as it was said where it could not be translated."""
        return self.passage.text if isinstance(self.outcome, ServerError) else self.outcome.text


def passages(transcript: Transcript) -> list[Passage]:
    """Of all turns, in order; none of them is empty."""
    return [_passage(words) for turn in transcript.turns for words in _split(turn.words)]


def _split(words: Sequence[TimedWord]) -> list[list[TimedWord]]:
    found = [[words[0]]]
    for before, word in pairwise(words):
        passage = found[-1]
        chars = sum(len(each.text) + 1 for each in passage)
        full = word.end_ms - passage[0].start_ms > LONGEST_MS or chars + len(word.text) > MOST_CHARS
        if full or before.text.endswith(_SENTENCE_ENDS) or word.start_ms - before.end_ms >= _PAUSE_MS:
            found.append([])
        found[-1].append(word)
    return found


def _passage(words: Sequence[TimedWord]) -> Passage:
    return Passage(" ".join(word.text for word in words), words[0].start_ms, words[-1].end_ms)


async def translate(
    translator: Translator,
    said: Sequence[Passage],
    source: str,
    target: str,
    speak: bool,
    tell: Callable[[Rendered], Awaitable[None]],
) -> None:
    """Translate passages from the language ``source`` to ``target``, some at a time, and ``tell`` of each in their
    order. ``speak``: with a voice. One that cannot be translated costs no other. Safe to cancel."""
    under_way: deque[asyncio.Task[Rendered]] = deque()
    try:
        for number, passage in enumerate(said):
            wanted = Utterance(source, target, passage.text, speak=speak)
            under_way.append(asyncio.create_task(_render(translator, passage, wanted), name=f"translate-{number}"))
            if len(under_way) == _AT_ONCE:
                await tell(await under_way[0])
                under_way.popleft()
        while under_way:
            await tell(await under_way[0])
            under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _render(translator: Translator, passage: Passage, wanted: Utterance) -> Rendered:
    try:
        try:
            return Rendered(passage, await translator.translate(wanted))
        except _PASSING:
            await _until_ready(translator)
            return Rendered(passage, await translator.translate(wanted))
    except ServerError as error:
        return Rendered(passage, error)


async def _until_ready(translator: Translator) -> None:
    """Raises EngineUnavailable when it takes too long."""
    try:
        async with asyncio.timeout(_RESTART_S):
            await translator.wait_ready()
    except TimeoutError:
        raise EngineUnavailable from None


def as_transcript(duration_ms: int, rendered: Sequence[Rendered]) -> Transcript:
    """Of the translated text: each passage is a turn, its words spread over the time in which it was said."""
    turns = (Turn(tuple(_spread(each.text.split(), each.passage))) for each in rendered if each.text.split())
    return Transcript(duration_ms, tuple(turns))


def _spread(texts: Sequence[str], passage: Passage) -> list[TimedWord]:
    chars = sum(map(len, texts))
    words, before = [], 0
    for text in texts:
        ends = [
            passage.start_ms + (passage.end_ms - passage.start_ms) * count // chars
            for count in (before, before + len(text))
        ]
        words.append(TimedWord(text, *ends))
        before += len(text)
    return words
