"""Noise, music and a device's tones are not said in a translated room, in either of its languages: by what the detector
and the bundled model make of the sound, and the room's own cutting. No time passes: frames go in as fast as they are
taken."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from lab.pico.portuguese import PAIRS
from lab.speech import espeak
from lab.speech.spoken import Voice
from rtc_server import bundled
from rtc_server.audio import FRAME_MS, FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray, silence
from rtc_server.engine.factory import SlotOptions
from rtc_server.models import silero
from rtc_server.models.kyutai import model as kyutai
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.protocols import events
from rtc_server.rooms.cutter import Cutter
from rtc_server.transcription.turns import SpeechEvent, SpeechKind, VoiceTracker
from rtc_server.transcription.words import Word
from tests.conftest import need_commands
from training import sounds
from training.dictation import Reading, written

HEARD_S = 8
LEVEL = 0.1
SEED = 5
LANGUAGES = {"en": (bundled.PICO_STT, "en-us", 0), "pt": (bundled.PICO_STT_PT, "pt-br", 1)}


def microphones(accent: str, text: str) -> Iterator[FloatArray]:
    """What each hears; the last one, after silence, its member."""
    random = np.random.default_rng(SEED)
    for made in (sounds.noise, sounds.music, sounds.tones):
        yield (made(HEARD_S * MODEL_RATE_HZ, random) * LEVEL).clip(-1, 1).astype(np.float32)
    yield np.concatenate(
        (silence(MODEL_RATE_HZ), espeak.speak(text, Voice(f"{accent}+m3")).pcm, silence(MODEL_RATE_HZ))
    )


def detected(pcm: FloatArray) -> list[SpeechEvent]:
    """As the settings have it by default."""
    detector, tracker = silero.load(SlotOptions(1)), VoiceTracker(0.5, 400.0, 1000.0)
    active, found = np.ones(1, np.bool_), []
    for frame in range(len(pcm) // FRAME_SAMPLES):
        (output,) = detector.step(pcm[None, frame * FRAME_SAMPLES : (frame + 1) * FRAME_SAMPLES], active)
        assert output is not None
        found += tracker.push((frame + 1) * FRAME_MS, 1.0 - output.pauses[0])
    return found


def said(words: list[Word], speech: list[SpeechEvent]) -> list[str]:
    """Utterances, of words that come a second and a half late."""
    cutter, cuts = Cutter(0.0), []
    told = [(each.at_ms, each) for each in speech] + [(round(word.end_s * 1000) + 1500, word) for word in words]
    for at_ms, each in sorted(told, key=lambda one: one[0]):
        if isinstance(each, Word):
            cutter.word(events.Word(each.text, round(each.start_s * 1000), round(each.end_s * 1000)))
        elif each.kind is SpeechKind.STARTED:
            cutter.started(each.at_ms)
        elif each.kind is SpeechKind.ENDED:
            cutter.ended(each.at_ms)
        cuts += cutter.heard(at_ms)
    return [cut.text.lower() for cut in cuts + cutter.finish()]


@pytest.mark.parametrize("language", LANGUAGES)
def test_noise_music_and_tones_are_not_said_and_speech_is(language: str) -> None:
    need_commands("espeak-ng")
    name, accent, which = LANGUAGES[language]
    sentence = PAIRS[0][which]
    heard = list(microphones(accent, sentence))
    model = kyutai.load(KyutaiOptions(model=name, slots=len(heard), threads=1))
    model.warm_up()
    wrote = written(model, [Reading(pcm, ()) for pcm in heard])
    model.close()
    *others, spoken = [said(words, detected(pcm)) for words, pcm in zip(wrote, heard, strict=True)]
    assert others == [[], [], []]
    assert " ".join(spoken).split()[:1] == sentence.split()[:1], "a recogniser that writes nothing proves nothing"
