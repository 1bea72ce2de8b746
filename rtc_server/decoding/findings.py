"""Codes of what can be wrong with a file: why it has no audio, or which part of it is left out. Sentences are made for
peers elsewhere.

Only the codes cross the border of the process that reads the file: what a stranger's file makes of that process can put
no words into our answers.
"""

from __future__ import annotations

import enum
from typing import Final


class Refusal(enum.StrEnum):
    """Why a file, or a part of it, is not heard at all."""

    EMPTY = "empty"
    NOT_MEDIA = "not_media"
    NO_TRACK = "no_track"
    NO_DECODER = "no_decoder"
    NO_SOUND = "no_sound"
    NO_BEGINNING = "no_beginning"
    NO_INDEX = "no_index"
    MEMORY = "memory"
    STALLED = "stalled"
    CRASHED = "crashed"
    TOO_LONG = "too_long"


REFUSALS: Final[dict[Refusal, str]] = {
    Refusal.EMPTY: "The file is empty.",
    Refusal.NOT_MEDIA: "The file holds no audio that can be decoded: it is of no kind that this server reads.",
    Refusal.NO_TRACK: "The file has no audio track.",
    Refusal.NO_DECODER: "The file holds no audio that can be decoded: there is no decoder for its audio tracks.",
    Refusal.NO_SOUND: "The file holds no audio that can be decoded: what it says it has is not in it.",
    Refusal.NO_BEGINNING: "The beginning of the recording is missing: this is a later piece of it, which cannot be "
    "decoded alone. Send all pieces together, in one file.",
    Refusal.NO_INDEX: "The file breaks off before the index that it needs to be decoded.",
    Refusal.MEMORY: "Decoding the file needs more memory than one file may take.",
    Refusal.STALLED: "Decoding the file takes too long for the audio that is in it.",
    Refusal.CRASHED: "The decoder broke down over the file.",
    Refusal.TOO_LONG: "The file has more audio than may be sent.",
}


class Notice(enum.StrEnum):
    """What of a file was not heard, although other parts were."""

    CUT_OFF = "cut_off"
    LEFT_OVER = "left_over"
    DAMAGED = "damaged"
    TRACK_UNREADABLE = "track_unreadable"
    TRACKS_LEFT_OUT = "tracks_left_out"


NOTICES: Final[dict[Notice, str]] = {
    Notice.CUT_OFF: "The file breaks off before its end: what comes after that is missing.",
    Notice.LEFT_OVER: "A part of the file cannot be decoded and was left out.",
    Notice.DAMAGED: "Pieces of the audio are damaged and were left out.",
    Notice.TRACK_UNREADABLE: "One of the audio tracks cannot be decoded and was left out.",
    Notice.TRACKS_LEFT_OUT: "The file has the audio in several languages, or very many tracks: some were left out.",
}


class Refused(Exception):
    """Raised while a file is read."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal)
