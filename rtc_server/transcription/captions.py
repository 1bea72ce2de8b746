"""Writes transcripts as files: plain text, SubRip, WebVTT, JSON. Pure: words in, text out.

Owns how words become turns and turns become cues that can be read. Knows nothing of models and media.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, assert_never

CaptionFormat = Literal["json", "txt", "srt", "vtt"]

LINE_CHARS: Final = 42
"""A line's length and, with the next three, what the guides of broadcasters and Netflix agree on."""
CUE_LINES: Final = 2
CUE_MS: Final = 6000
_LEAST_CUE_MS: Final = 1000
"""A cue stays so long for the reader, unless the next one comes sooner."""
_CUE_GAP_MS: Final = 1000
"""Words after a pause of this length have a cue of their own: they are not to be read before they are said."""
_STRUCTURE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, surrogates, separators of lines and paragraphs."""
_SENTENCE_ENDS: Final = (".", "?", "!", "…", "。", "？", "！")
_SRT_PLAIN: Final = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")"})
"""SubRip has no escapes, and players take <b> and {\\an8} for markup."""
_VTT_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
"""WebVTT, section 4.2.2; it takes care of ``-->`` as well."""


@dataclass(frozen=True, slots=True)
class TimedWord:
    """Times are in the file's audio."""

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Turn:
    """What a speaker said until they had finished; never empty."""

    words: tuple[TimedWord, ...]

    @property
    def start_ms(self) -> int:
        return self.words[0].start_ms

    @property
    def end_ms(self) -> int:
        return self.words[-1].end_ms

    @property
    def text(self) -> str:
        return _joined(self.words)


@dataclass(frozen=True, slots=True)
class FileWarning:
    """Something of a file was not heard: a code for programs, a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """All that was said in ``duration_ms`` of audio. ``warnings``: what of the file is not in it."""

    duration_ms: int
    turns: tuple[Turn, ...]
    warnings: tuple[FileWarning, ...] = ()

    @property
    def words(self) -> tuple[TimedWord, ...]:
        return tuple(word for turn in self.turns for word in turn.words)


@dataclass(frozen=True, slots=True)
class Cue:
    """One to :data:`CUE_LINES` lines, each of at most :data:`LINE_CHARS` characters unless one word is longer."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


def split_turns(words: Sequence[TimedWord], breaks: Iterable[int]) -> tuple[Turn, ...]:
    """``breaks``: numbers of words before which a turn has ended."""
    edges = sorted({0, len(words), *(at for at in breaks if 0 < at < len(words))})
    return tuple(Turn(tuple(words[start:end])) for start, end in pairwise(edges))


def breaks_at_gaps(words: Sequence[TimedWord], gap_ms: float) -> list[int]:
    """Split at silences of ``gap_ms``: the ends of turns, if the model does not tell."""
    return [at for at, (word, after) in enumerate(pairwise(words), 1) if after.start_ms - word.end_ms >= gap_ms]


def cues(transcript: Transcript) -> list[Cue]:
    """In order, none of them empty, none over the other, none longer than :data:`CUE_MS`."""
    groups = [group for turn in transcript.turns for group in _grouped(_readable(turn.words))]
    made: list[Cue] = []
    free_ms = 0
    for number, group in enumerate(groups):
        start_ms = max(group[0].start_ms, free_ms)
        said_ms = max(group[-1].end_ms, start_ms + _LEAST_CUE_MS)
        if number + 1 < len(groups):
            said_ms = min(said_ms, max(groups[number + 1][0].start_ms, group[-1].end_ms))
        # A cue without any length would never be shown.
        free_ms = min(max(said_ms, start_ms + 1), start_ms + CUE_MS)
        made.append(Cue(start_ms, free_ms, tuple(_wrapped(group))))
    return made


def render(transcript: Transcript, form: CaptionFormat) -> str:
    """A whole file. Warnings stand where the format has a place for them; else last, in brackets, as what is not said
    stands in subtitles."""
    match form:
        case "json":
            return json.dumps(as_dict(transcript), ensure_ascii=False) + "\n"
        case "txt":
            notes = [f"[{warning.message}]" for warning in transcript.warnings]
            return "\n".join(f"{paragraph}\n" for paragraph in [*_paragraphs(transcript), *notes])
        case "srt":
            blocks = [
                f"{number}\n{_time(cue.start_ms, ',')} --> {_time(cue.end_ms, ',')}\n{_plain(cue)}\n"
                for number, cue in enumerate([*cues(transcript), *_warning_cues(transcript)], 1)
            ]
            return "\n".join(blocks)
        case "vtt":
            blocks = [
                f"{_time(cue.start_ms, '.')} --> {_time(cue.end_ms, '.')}\n{_escaped(cue)}\n"
                for cue in cues(transcript)
            ]
            notes = [f"NOTE {warning.message}\n" for warning in transcript.warnings]
            return "\n".join(["WEBVTT\n", *blocks, *notes])
        case _:
            assert_never(form)


def _warning_cues(transcript: Transcript) -> Iterable[Cue]:
    """One after the other, behind what is said."""
    said = cues(transcript)
    start_ms = max(transcript.duration_ms, said[-1].end_ms if said else 0)
    for warning in transcript.warnings:
        lines = _wrapped(TimedWord(text, 0, 0) for text in f"[{warning.message}]".split())
        yield Cue(start_ms, start_ms + _LEAST_CUE_MS, tuple(lines))
        start_ms += _LEAST_CUE_MS


def as_dict(transcript: Transcript) -> dict[str, Any]:
    """The JSON of ``POST /api/transcribe``. ``warnings`` only where there are any."""
    made: dict[str, Any] = {
        "duration_ms": transcript.duration_ms,
        "text": _joined(transcript.words),
        "words": [word_dict(word) for word in transcript.words],
        "turns": [{"start_ms": turn.start_ms, "end_ms": turn.end_ms, "text": turn.text} for turn in transcript.turns],
    }
    if transcript.warnings:
        made["warnings"] = [warning_dict(warning) for warning in transcript.warnings]
    return made


def warning_dict(warning: FileWarning) -> dict[str, Any]:
    """One of its ``warnings``."""
    return {"code": warning.code, "message": warning.message}


def word_dict(word: TimedWord) -> dict[str, Any]:
    """One of its ``words``."""
    return {"text": word.text, "start_ms": word.start_ms, "end_ms": word.end_ms}


def _joined(words: Iterable[TimedWord]) -> str:
    return " ".join(word.text for word in words)


def _paragraphs(transcript: Transcript) -> Iterable[str]:
    for turn in transcript.turns:
        text = _joined(_readable(turn.words))
        if text:
            yield text


def _readable(words: Iterable[TimedWord]) -> list[TimedWord]:
    """Without line ends, control characters and words of nothing: in a file they would be structure."""
    made = []
    for word in words:
        kept = (" " if unicodedata.category(char) in _STRUCTURE else char for char in word.text)
        text = " ".join("".join(kept).split())
        if text:
            made.append(TimedWord(text, word.start_ms, word.end_ms))
    return made


def _grouped(words: Iterable[TimedWord]) -> Iterable[list[TimedWord]]:
    """The words of one turn by cue."""
    group: list[TimedWord] = []
    for word in words:
        if group and not _fits(group, word):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _fits(group: list[TimedWord], word: TimedWord) -> bool:
    if word.end_ms - group[0].start_ms > CUE_MS or word.start_ms - group[-1].end_ms >= _CUE_GAP_MS:
        return False
    # A sentence that fills a line is read better alone than with the beginning of the next.
    if group[-1].text.endswith(_SENTENCE_ENDS) and len(_joined(group)) >= LINE_CHARS:
        return False
    return len(_wrapped([*group, word])) <= CUE_LINES


def _wrapped(words: Iterable[TimedWord]) -> list[str]:
    lines: list[str] = []
    for text in (word.text for word in words):
        if lines and len(lines[-1]) + 1 + len(text) <= LINE_CHARS:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return lines


def _time(ms: int, point: str) -> str:
    seconds, rest = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{rest:03}"


def _plain(cue: Cue) -> str:
    # An arrow would make a line of text look like times.
    return "\n".join(cue.lines).replace("-->", "→").translate(_SRT_PLAIN)


def _escaped(cue: Cue) -> str:
    return "\n".join(cue.lines).translate(_VTT_ESCAPES)
