"""A model that need not hear, for it knows who speaks to it: the bundled model's part, played well or badly."""

from __future__ import annotations

from collections import deque

import numpy as np

from lab.pico import own_voice, phrases
from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.model import BoolArray, FloatArray, MemoryUse, ModelInfo, RowOutput, ServiceKind
from training.person import Person

_Frame = tuple[FloatArray, str]


class Actor:
    """Answers one :class:`Person` as the training's recipe says.

    ``wait_frames``: after the end of a phrase. ``pace_frames``: of a count. ``deaf``: it does not hear "stop".
    ``mute``: it only writes. ``lines``: what it says to a phrase in place of the right answer.
    """

    def __init__(
        self,
        person: Person,
        *,
        wait_frames: int = 3,
        pace_frames: int = own_voice.COUNT_FRAMES,
        deaf: bool = False,
        mute: bool = False,
        lines: dict[str, str] | None = None,
    ) -> None:
        self.info = ModelInfo("actor", ServiceKind.DIALOGUE, 1, "cpu", speaks=True, writes=True)
        self._person = person
        self._wait_frames, self._pace_frames = wait_frames, pace_frames
        self._deaf, self._mute = deaf, mute
        self._lines = lines or {}
        self._replies = {text: one.reply for one in phrases.questions() for text in one.wordings}
        self._score: deque[_Frame] = deque()
        self._left: list[str] = []
        self._hears = ""

    def warm_up(self) -> None:
        pass

    def reset(self, rows: BoolArray) -> None:
        pass

    def memory(self) -> MemoryUse:
        return MemoryUse()

    def close(self) -> None:
        pass

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        saying = self._person.saying
        if self._hears and not saying:
            self._answer(self._hears)
        self._hears = saying
        voice, text = self._score.popleft() if self._score else _quiet()
        if text.strip() in self._left:
            self._left.remove(text.strip())
        return [RowOutput(pcm=_quiet()[0] if self._mute else voice, text=text)]

    def _answer(self, phrase: str) -> None:
        reply = self._replies.get(phrase, phrases.Reply("say", (phrases.NOT_UNDERSTOOD,)))
        if reply.kind == "stop":
            if not self._deaf:
                self._score = deque(list(self._score)[:2])
            return
        self._score = deque(_quiet() for _ in range(self._wait_frames))
        if phrase in self._lines:
            self._say(self._lines[phrase])
        elif reply.kind == "count" or (reply.kind == "go on" and self._left):
            self._left = list(phrases.NUMBERS[1 : reply.count_to + 1]) if reply.count_to else self._left
            for word in self._left:
                self._say(word, self._pace_frames)
        else:
            for part in reply.parts or (phrases.NOTHING_TO_GO_ON_WITH,):
                self._say(part)

    def _say(self, text: str, frames: int = 0) -> None:
        """``frames``: how many it takes; 0: as many as it has."""
        part = own_voice.part(text)
        words = dict(part.words)
        for index in range(frames or part.frames):
            pcm = part.pcm[index * FRAME_SAMPLES :][:FRAME_SAMPLES] if index < part.frames else _quiet()[0]
            self._score.append((pcm, f" {words[index]}" if index in words else ""))


def _quiet() -> _Frame:
    return np.zeros(FRAME_SAMPLES, dtype=np.float32), ""
