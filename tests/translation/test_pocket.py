"""Voices of Pocket TTS, by a tiny random model through its own package: what comes out is what the package makes, a
speaker sounds the same each time, and speech ends."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtc_server.config import Settings
from rtc_server.errors import ConfigError, ModelLoadError
from rtc_server.metrics import Metrics
from rtc_server.services import make_translator
from rtc_server.translation import cascade, pocket_options, voices
from rtc_server.translation.cascade import CascadeOptions
from rtc_server.translation.model import Utterance
from tests.support.missing import skip_but_in_ci
from tests.support.translators import running

if importlib.util.find_spec("pocket_tts") is None:
    skip_but_in_ci("needs pocket-tts")

import torch

from rtc_server.translation import pocket
from rtc_server.translation.pocket import PocketVoice
from rtc_server.translation.tiny_pocket import VOICES, write_tiny_pocket

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("offline")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pocket(tmp_path_factory.mktemp("tiny") / "tiny-pocket")


@pytest.fixture(scope="module")
def voice(tiny: Path) -> PocketVoice:
    return pocket.load([f"pt={tiny}"])["pt"]


def test_it_says_what_the_package_says(voice: PocketVoice) -> None:
    torch.manual_seed(1)
    made = voice.speak("Good day.", 0)
    torch.manual_seed(1)
    model: Any = voice._model
    plain = model.generate_audio(voice._speakers[0], "Good day.").numpy()
    assert made is not None
    assert made.dtype == np.float32
    assert 0.2 * 24_000 < len(made) < 30 * 24_000
    np.testing.assert_allclose(made, np.clip(plain, -1, 1), atol=1e-5)


def test_speakers_have_a_voice_each_and_keep_it(voice: PocketVoice) -> None:
    made = []
    for speaker in (0, 1, VOICES, VOICES + 1):
        torch.manual_seed(2)
        pcm = voice.speak("Good day.", speaker)
        assert pcm is not None
        made.append(pcm)
    np.testing.assert_allclose(made[0], made[2], atol=1e-4)
    np.testing.assert_allclose(made[1], made[3], atol=1e-4)
    assert made[0].shape != made[1].shape or np.abs(made[0] - made[1]).max() > 0.01


def test_a_long_text_is_cut_off(voice: PocketVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pocket, "MAX_SPEECH_S", 1.0)
    before = set(threading.enumerate())
    pcm = voice.speak("One sentence of many. " * 20, 0)
    assert pcm is not None
    assert len(pcm) == 24_000
    for thread in set(threading.enumerate()) - before:  # the package does not join the one that it makes speech on
        thread.join(20)
        assert not thread.is_alive(), "what was cut off is not made to its end"


@pytest.mark.parametrize("text", ["", " ", "\u200b", "你好 🦜", "w" * 300, "<s></s>", "9 " * 50])
def test_hostile_texts_are_sound_or_none(voice: PocketVoice, text: str) -> None:
    pcm = voice.speak(text, 0)
    assert pcm is None or (np.isfinite(pcm).all() and pcm.size)
    assert voice.speak("And on.", 0) is not None


def test_two_who_speak_at_once_take_turns(voice: PocketVoice) -> None:
    spoken: list[int] = []

    def speak(number: int) -> None:
        pcm = voice.speak("Good day.", number)
        spoken.append(0 if pcm is None else len(pcm))

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(spoken) == 4
    assert all(spoken)


def test_what_is_said_is_not_logged(voice: PocketVoice, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        voice.speak("A secret that is not read. " * 8, 0)
    assert "secret" not in caplog.text.lower()


def test_the_cascade_speaks_with_it_where_it_is_wanted(tiny: Path) -> None:
    model = cascade.load(CascadeOptions((f"pt={tiny}",)))
    assert pocket_options.NOTICE in model.info.notice
    assert "pt" in model.info.speaks
    (made,) = model.translate([Utterance("pt", "pt", "Bom dia.")])
    assert not isinstance(made, Exception)
    assert made.pcm is not None


def test_other_languages_keep_their_voices(tiny: Path) -> None:
    found = voices.find([f"pt={tiny}"])
    assert isinstance(getattr(found["pt"], "__self__", None), PocketVoice)
    if shutil.which("espeak-ng") is not None:
        assert not isinstance(getattr(found["en"], "__self__", None), PocketVoice)


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json", "tiny.yaml", "voices"])
def test_a_model_that_lacks_a_file_says_so(tiny: Path, tmp_path: Path, missing: str) -> None:
    shutil.copytree(tiny.parent, tmp_path / "copy")
    gone = tmp_path / "copy" / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    here = tmp_path / "copy" / "tiny.yaml"
    if here.exists():
        here.write_text(here.read_text().replace(str(tiny.parent), str(tmp_path / "copy")))
    with pytest.raises(ModelLoadError, match=r"cannot be loaded|no voice to speak in"):
        pocket.load([f"pt={here}"])


@pytest.mark.parametrize("wanted", ["xx", "ja", "=x.yaml", "quenya=x.yaml"])
def test_a_language_that_it_does_not_speak_is_refused(wanted: str) -> None:
    with pytest.raises(ConfigError, match="no language that Pocket TTS speaks"):
        make_translator(Settings(translate="cascade", pocket_tts=(wanted,)), Metrics())


def test_a_model_that_speaks_itself_takes_no_voice() -> None:
    with pytest.raises(ConfigError, match="seamless-m4t-v2-large speaks its translations itself"):
        make_translator(Settings(translate="facebook/seamless-m4t-v2-large", pocket_tts=("en",)), Metrics())


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pocket_options, "PACKAGE", "no_such_package")
    with pytest.raises(ModelLoadError, match="wants the package no_such_package"):
        make_translator(Settings(translate="cascade", pocket_tts=("pt-BR",)), Metrics())


async def test_it_speaks_in_the_translators_process(tiny: Path) -> None:
    settings = Settings(translate="cascade", pocket_tts=(f"pt={tiny}",), threads=1)
    translator = make_translator(settings, Metrics())
    assert translator is not None
    async with running(translator):
        made = await translator.translate(Utterance("pt", "pt", "Bom dia."))
        assert made.pcm is not None
