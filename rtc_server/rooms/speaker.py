"""One member's microphone: to the others' ears, cut into utterances, and these into the room.

Takes frames, and what the session has heard in them (speech, words). Knows nothing of transports.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from rtc_server import audio
from rtc_server.audio import FRAME_MS, FloatArray
from rtc_server.protocols import events
from rtc_server.rooms.cutter import LONGEST_MS, Cut, Cutter
from rtc_server.rooms.lane import Lane
from rtc_server.rooms.lobby import Lobby
from rtc_server.rooms.member import Member
from rtc_server.rooms.room import Room
from rtc_server.rooms.simultaneous import RETRY_S

_LEAD_MS: Final = 240
"""Of sound before the detector heard speech, which belongs to the utterance."""
_LEAST_MS: Final = 400
"""A shorter sound is no utterance."""
_LOOK_FRAMES: Final = 6
"""Between two looks at whether the speaker is to be translated while they speak."""
_QUIET_DBFS: Final = -50.0
"""Below this there is no speech, where no detector tells."""


class Speaker:
    def __init__(self, lobby: Lobby, room: Room, member: Member) -> None:
        self._lobby = lobby
        self._room = room
        self._member = member
        self._frames = 0
        self._sound: deque[FloatArray] = deque(maxlen=(LONGEST_MS + 2 * _LEAD_MS) // FRAME_MS + 2)
        self._cutter = self._new_cutter()
        self._language = member.language
        self._lane: Lane | None = None
        self._no_lane_until = float("-inf")

    @property
    def heard_ms(self) -> int:
        return self._frames * FRAME_MS

    def on_frame(self, pcm: FloatArray) -> None:
        """A frame of the microphone."""
        frame = audio.sanitise(pcm)
        self._frames += 1
        self._room.speak(self._member, frame)
        if self._member.language != self._language:
            speaks = self._cutter.speaking
            self.finish()
            if speaks:  # who goes on in the other language
                self._cutter.started(self.heard_ms - FRAME_MS)
        if self._member.language in self._lobby.interpreter.hears:
            self._sound.append(frame)
        self._interpret(frame)
        self._cut()

    def on_event(self, event: events.Heard | events.WordsComplete) -> None:
        """What was heard in the microphone; times are in its audio."""
        match event:
            case events.SpeechStarted(at_ms):
                self._cutter.started(at_ms)
                self._room.set_speaking(self._member, True)
            case events.SpeechEnded(at_ms):
                self._cutter.ended(at_ms)
                self._room.set_speaking(self._member, False)
            case events.Word():
                self._cutter.word(event)
            case events.WordsComplete(until_ms):
                self._cutter.complete(until_ms)
                self._cut()
            case _:
                pass

    def finish(self) -> None:
        """What was said until now is said: the member speaks no more, or in another language."""
        for cut in self._cutter.finish():
            self._say(cut)
        self._end_lane()
        self._sound.clear()
        self._language = self._member.language
        self._cutter = self._new_cutter()

    def reset(self) -> None:
        """The microphone's time begins at 0 again."""
        self.finish()
        self._frames = 0

    def _new_cutter(self) -> Cutter:
        if self._member.language in self._lobby.interpreter.hears:
            return Cutter(None)
        engine = self._lobby.recogniser(self._member.language)
        info = None if engine is None else engine.info
        return Cutter(0.0 if info is None else info.delay_s * 1000, self._lobby.detects)

    def _cut(self) -> None:
        for cut in self._cutter.heard(self.heard_ms):
            self._say(cut)

    def _say(self, cut: Cut) -> None:
        if self._lobby.paused:
            return  # of which the member was told
        now = self._lobby.clock()
        ended_at = now - max(0, self.heard_ms - cut.end_ms) / 1000
        spoken_ms = cut.end_ms - cut.start_ms
        pcm = None
        if not cut.text:
            if spoken_ms < _LEAST_MS:
                return
            pcm = self._sound_of(cut)
        elif self._member.echoes.has(cut.text, ended_at - spoken_ms / 1000):
            return
        lane = self._lane if self._lane is not None and self._lane.covers(cut.start_ms) else None
        elsewhere = "" if lane is None else lane.target
        message = self._room.say(self._member, cut.text, "speech", spoken_ms, ended_at, self._language, elsewhere)
        if lane is not None:
            lane.hear(message, cut.end_ms, pcm)
        self._lobby.interpreter.interpret(self._room, message, pcm)

    def _interpret(self, frame: FloatArray) -> None:
        """Give a frame to the model that translates while the speaker speaks, if one does and there is a row."""
        simultaneous = self._lobby.simultaneous
        if self._lane is not None and self._lane.failed:
            self._end_lane()
            self._no_lane_until = self._lobby.clock() + RETRY_S
        if self._frames % _LOOK_FRAMES == 1:
            target = simultaneous.target(self._room, self._member, self._lane is not None)
            if target is None:
                self._end_lane()
            elif self._lane is None and self._lobby.clock() >= self._no_lane_until:
                self._lane = simultaneous.lane(
                    self._room, self._member, target, self._lobby.clock, lambda: self._lobby.paused
                )
        if self._lane is not None:
            quiet = not self._cutter.speaking if self._lobby.detects else audio.level_dbfs(frame) < _QUIET_DBFS
            # What is said already is an utterance's, where utterances are translated.
            by_utterances = (self._language, self._lane.target) in self._room.translated
            self._lane.push(frame, self.heard_ms, quiet, not (by_utterances and self._cutter.speaking))

    def _end_lane(self) -> None:
        """What its model has not said, because its engine has died or the speaker left, is an utterance's."""
        lane, self._lane = self._lane, None
        if lane is None:
            return
        lane.close()
        for each in lane.take_unsaid():
            self._room.take_up(each.message)
            self._lobby.interpreter.interpret_into(self._room, each.message, lane.target, each.pcm)

    def _sound_of(self, cut: Cut) -> FloatArray:
        kept = np.concatenate(self._sound)
        ends = audio.ms_to_samples(self.heard_ms - cut.end_ms)
        starts = audio.ms_to_samples(self.heard_ms - cut.start_ms + _LEAD_MS)
        return kept[max(0, kept.size - starts) : kept.size - ends]
