"""What a model says although no one spoke to it is counted, once for each time it speaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ
from rtc_server.engine.model import BoolArray, FloatArray, MemoryUse, ModelInfo, RowOutput, ServiceKind
from training import direct
from training.disturbance import Bystander


class Chatterbox:
    """Speaks in the frames it is told to; keeps what it hears."""

    def __init__(self, sounding: Sequence[int] = (), writing: Sequence[int] = ()) -> None:
        self.info = ModelInfo("chatterbox", ServiceKind.DIALOGUE, 1, "cpu", speaks=True, writes=True)
        self.heard: list[FloatArray] = []
        self._sounding, self._writing = set(sounding), set(writing)

    def warm_up(self) -> None:
        pass

    def reset(self, rows: BoolArray) -> None:
        pass

    def memory(self) -> MemoryUse:
        return MemoryUse()

    def close(self) -> None:
        pass

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        frame = len(self.heard)
        self.heard.append(pcm[0].copy())
        level = 0.1 if frame in self._sounding else 0.001
        return [RowOutput(pcm=np.full(FRAME_SAMPLES, level, np.float32), text=" no" if frame in self._writing else "")]


def test_a_model_that_is_quiet_gives_no_false_answer() -> None:
    bystander = Bystander(5.0, seed=1)
    direct.converse(Chatterbox(), [bystander])
    assert bystander.answers() == []


def test_words_and_sounds_close_together_are_one_answer() -> None:
    """At 4 s a word and sounds, half a second apart; at 8 s a sound alone."""
    bystander = Bystander(10.0, seed=1)
    direct.converse(Chatterbox(sounding=[50, 56, 100], writing=[52]), [bystander])
    first, second = bystander.answers()
    assert (round(first.at_s), first.text) == (4, " no")
    assert (round(second.at_s), second.text) == (8, "")


def test_there_is_silence_noise_music_and_talk() -> None:
    """20 s each; only silence is silent."""
    model, bystander = Chatterbox(sounding=[10, 260, 510, 760]), Bystander(80.0, seed=2)
    direct.converse(model, [bystander])
    assert {answer.scene for answer in bystander.answers()} == {"silence", "noise", "music", "talk"}
    heard = np.concatenate(model.heard).reshape(4, 20 * MODEL_RATE_HZ)
    loud = {answer.scene: bool(scene.any()) for answer, scene in zip(bystander.answers(), heard, strict=True)}
    assert loud == {"silence": False, "noise": True, "music": True, "talk": True}
