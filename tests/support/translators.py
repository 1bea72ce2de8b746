"""Translators for tests: models that do what an utterance's text says, in a process of their own."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.errors import ModelLoadError, TranslationFailed
from rtc_server.metrics import Metrics
from rtc_server.translation.client import Translator
from rtc_server.translation.model import Outcome, Translation, TranslatorInfo, Utterance
from rtc_server.translation.process import TranslatorLink, TranslatorSpec

FAKES = "tests.support.translators"
_LOOK_S: Final = 0.01
_LANGUAGES: Final = ("en", "pt", "de")
SUNG_HZ: Final = 440.0


@dataclass(frozen=True, slots=True)
class FakeOptions:
    """``batch`` and ``at_once``: as in :class:`TranslatorInfo`. ``languages``: all are translated into each other."""

    batch: int = 8
    at_once: int = 1
    languages: tuple[str, ...] = _LANGUAGES


class Obedient:
    """Turns text round. ``raise``, ``refuse``, ``short``, ``sleep`` and ``hang`` do what they say, ``wait PATH`` waits
    until there is a file; ``empty`` has no translation; ``batch`` tells how many utterances were in its batch."""

    def __init__(self, options: FakeOptions) -> None:
        pairs = frozenset(itertools.permutations(options.languages, 2))
        speaks, hears = frozenset({"en", "pt"}), frozenset({"de"})
        self._info = TranslatorInfo("fake", pairs, speaks, hears, "Fake.", options.batch, options.at_once)

    @property
    def info(self) -> TranslatorInfo:
        return self._info

    def warm_up(self) -> None:
        pass

    def translate(self, batch: Sequence[Utterance]) -> list[Outcome]:
        if any(utterance.text == "raise" for utterance in batch):
            raise ValueError("raise")
        if any(utterance.text == "short" for utterance in batch):
            return []
        return [self._one(utterance, len(batch)) for utterance in batch]

    def close(self) -> None:
        pass

    def _one(self, utterance: Utterance, together: int) -> Outcome:
        match utterance.text:
            case "refuse":
                return TranslationFailed()
            case "sleep":
                time.sleep(0.3)
            case "hang":
                threading.Event().wait()
            case "empty":
                return Translation("", "empty", None)
            case "batch":
                return Translation(str(together), "batch", None)
        if utterance.text.startswith("wait "):
            while not Path(utterance.text.removeprefix("wait ")).exists():
                time.sleep(_LOOK_S)
        heard = "" if utterance.pcm is None else f"{len(utterance.pcm)} {np.abs(utterance.pcm).max():.2f}"
        return Translation(utterance.text[::-1] or heard, utterance.text, _voice(utterance))


class Refusing(Obedient):
    """Can do nothing."""

    def _one(self, utterance: Utterance, together: int) -> Outcome:
        return TranslationFailed()


class Vocal(Obedient):
    """Speaks for a tenth of a second, and tells what it has heard."""

    def _one(self, utterance: Utterance, together: int) -> Outcome:
        made = super()._one(utterance, together)
        if not isinstance(made, Translation):
            return made
        pcm = None if made.pcm is None else np.full(2400, 0.1, np.float32)
        return Translation(made.text, made.original or made.text, pcm)


class Tuneful(Vocal):
    """Sings: a second of :data:`SUNG_HZ`, which codecs let through, and which is in no speech."""

    def _one(self, utterance: Utterance, together: int) -> Outcome:
        made = super()._one(utterance, together)
        if not isinstance(made, Translation) or made.pcm is None:
            return made
        times = np.arange(MODEL_RATE_HZ) / MODEL_RATE_HZ
        return Translation(made.text, made.original, (0.25 * np.sin(2 * np.pi * SUNG_HZ * times)).astype(np.float32))


def _voice(utterance: Utterance) -> FloatArray | None:
    return np.full(24, utterance.voice / 100, np.float32) if utterance.speak else None


def unloadable(_options: FakeOptions) -> Obedient:
    raise ModelLoadError("no such translator", "Check the name.")


def fake(
    batch: int = 8,
    at_once: int = 1,
    queue: int = 64,
    factory: str = "Obedient",
    stall_timeout_s: float = 60.0,
    languages: tuple[str, ...] = _LANGUAGES,
) -> Translator:
    spec = TranslatorSpec(f"{FAKES}:{factory}", FakeOptions(batch, at_once, languages), logging.CRITICAL)
    return Translator(lambda: TranslatorLink(spec), Metrics(), queue, stall_timeout_s)


@contextlib.asynccontextmanager
async def running(translator: Translator) -> AsyncIterator[Translator]:
    translator.start()
    try:
        await translator.wait_settled()
        yield translator
    finally:
        await translator.close()


def count(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0
