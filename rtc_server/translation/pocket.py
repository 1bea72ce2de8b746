"""Voices of Kyutai's Pocket TTS, by its own package: text in, sound at 24 kHz out, on the CPU.

Owns which of its models speaks a language, in whose voices, and how long it may speak. Imports torch: for the
translator's process alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import soxr

from rtc_server import audio
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.errors import ModelLoadError
from rtc_server.translation.espeak import MAX_SPEECH_S
from rtc_server.translation.pocket_options import HINT, LANGUAGES, split

logger = logging.getLogger(__name__)

_SPEAKERS: Final = ("alba", "marius", "fantine", "jean", "eponine", "charles", "azelma", "paul")
"""Of the package's voices, women and men in turn."""
_MOST_SPEAKERS: Final = 8


class PocketVoice:
    """One language. ``model``: the package's ``TTSModel``; ``speakers``: its states after hearing each voice. Several
    threads may call: they take turns."""

    def __init__(self, model: Any, speakers: Sequence[Any]) -> None:
        self._model = model
        self._speakers = speakers
        self._turn = threading.Lock()

    def speak(self, text: str, speaker: int) -> FloatArray | None:
        """``text`` as mono float32 at 24 kHz; None if nothing in it can be said. ``speaker``: the same number sounds
        the same. What takes more than two minutes to say is cut off."""
        rate_hz = self._model.sample_rate
        left = round(MAX_SPEECH_S * rate_hz)
        stop = threading.Event()
        spoken: list[FloatArray] = []
        with self._turn:
            try:
                state = self._speakers[speaker % len(self._speakers)]
                for chunk in self._model.generate_audio_stream(state, text, stop=stop):
                    if left > 0:
                        spoken.append(chunk[:left].float().numpy())
                        left -= len(spoken[-1])
                    else:
                        stop.set()  # and what it has made until then is taken, for a thread of its own waits for that
            except (ValueError, RuntimeError) as error:  # what the package raises for text of which nothing is left
                logger.warning("Pocket TTS has no voice for a text: %s", type(error).__name__)
                return None
        pcm = np.concatenate(spoken) if spoken else audio.silence(0)
        if pcm.size == 0:
            return None
        return audio.sanitise(np.asarray(soxr.resample(audio.sanitise(pcm), rate_hz, MODEL_RATE_HZ), dtype=np.float32))


def load(wanted: Sequence[str]) -> dict[str, PocketVoice]:
    """The voices of the languages in ``wanted`` (:mod:`rtc_server.translation.pocket_options`), by tag. Raises
    ModelLoadError."""
    if not wanted:
        return {}
    from pocket_tts import TTSModel  # noqa: PLC0415 - an optional package

    # It tells of each text that it speaks.
    logging.getLogger("pocket_tts").setLevel(logging.ERROR)
    return {language: _load(TTSModel, language, config) for language, config in map(split, wanted)}


def _load(package: Any, language: str, config: str) -> PocketVoice:
    path = Path(config).expanduser()
    try:
        if config:
            model = package.load_model(config=str(path))
            heard = sorted((path.parent / "voices").glob("*.wav"))[:_MOST_SPEAKERS]
            speakers = [model.get_state_for_audio_prompt(file, truncate=True) for file in heard]
        else:
            model = package.load_model(language=LANGUAGES[language])
            speakers = [model.get_state_for_audio_prompt(name) for name in _SPEAKERS]
    except Exception as error:  # of a file that is missing, what it loads with raises no narrower one
        logger.info("%s", error)
        raise ModelLoadError(f"The voice of Pocket TTS for {language} cannot be loaded.", HINT) from error
    if not speakers:
        raise ModelLoadError(f"{path.name} has no voice to speak in: voices/*.wav beside it.", HINT)
    return PocketVoice(model, speakers)
