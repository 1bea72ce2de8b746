"""What a hint tells to type works where it is read: in the checkout, and wherever else the program is called."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rtc_server.config import Settings
from rtc_server.engine.factory import make_model
from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.services import check_models, plan
from rtc_server.usage import invocation

ROOT = Path(__file__).parents[2]
URL = "turn:192.0.2.7:3478?transport=tcp"


def test_in_the_checkout_make_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert invocation.command("serve") == "make serve"
    assert invocation.command("serve", "--model", "a/b") == 'make serve ARGS="--model a/b"'
    assert invocation.command("serve", "--turn-urls", URL) == f"make serve ARGS=\"--turn-urls '{URL}'\""
    assert not invocation.command("check").startswith("make")
    assert invocation.how_to_install("moshi") == "make setup installs everything."
    assert "make train" in invocation.install_anew("pico")


def test_elsewhere_the_program_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A directory that has a Makefile of its own among them."""
    (tmp_path / "Makefile").touch()
    monkeypatch.chdir(tmp_path)
    *program, last = shlex.split(invocation.command("serve"))
    assert last == "serve"
    done = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("rtc-server ")
    for text in (invocation.how_to_install("moshi"), invocation.how_to_set_up(), invocation.install_anew("pico")):
        assert "make" not in text


def test_how_a_package_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the bounds of this program's own list; moshi without its own."""
    monkeypatch.chdir(tmp_path)
    pip = shlex.join([sys.executable, "-m", "pip", "install"])
    assert invocation.how_to_install("torch") == f"{pip} torch==2.13.0"
    assert invocation.how_to_install("huggingface_hub").startswith(f"{pip} 'huggingface-hub")
    assert invocation.how_to_install("moshi").endswith(f"{pip} --no-deps {invocation.MOSHI}")
    assert invocation.how_to_install("unheard_of") == f"{pip} unheard-of"


@pytest.mark.parametrize("hint", ["", "Ask your operator.", "rtc-servers serve", "unclosed 'quote", "make serve"])
def test_hints_of_others_are_left_as_they_are(hint: str) -> None:
    assert invocation.shown(hint) == hint


def test_a_hint_that_is_a_command_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    assert invocation.shown("rtc-server serve --model a/b") == 'make serve ARGS="--model a/b"'
    monkeypatch.chdir(tmp_path)
    assert invocation.shown("rtc-server serve --model a/b") == invocation.command("serve", "--model", "a/b")


def test_a_working_directory_that_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert not invocation.in_checkout()


def needs_what_is_not_there(options: KyutaiOptions) -> None:
    import no_such_package_of_anyone  # type: ignore[import-not-found]  # noqa: F401


def needs_what_is_ours(options: KyutaiOptions) -> None:
    import rtc_server.no_such_module  # type: ignore[import-untyped]  # noqa: F401


def test_a_package_that_turns_out_to_be_missing_while_a_model_loads() -> None:
    with pytest.raises(ModelLoadError, match="The model a/b wants the package no_such_package_of_anyone") as failed:
        make_model(f"{__name__}:needs_what_is_not_there", KyutaiOptions("a/b", 1))
    assert failed.value.hint == invocation.how_to_install("no_such_package_of_anyone")
    with pytest.raises(ModuleNotFoundError):
        make_model(f"{__name__}:needs_what_is_ours", KyutaiOptions("a/b", 1))


def test_nothing_is_started_for_a_model_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "moshi" else real(name))
    with pytest.raises(ModelLoadError, match="wants the package moshi"):
        check_models(plan(Settings(model="pico"), 0))
    check_models(plan(Settings(model="echo"), 0))


@pytest.mark.parametrize(("model", "meant"), [("picco", "pico"), ("pico-sst", "pico-stt"), ("/nowhere/at/all", None)])
def test_nothing_is_started_for_a_model_that_there_is_not(model: str, meant: str | None) -> None:
    with pytest.raises(ModelLoadError, match="neither a directory nor a hub repository") as failed:
        check_models(plan(Settings(model=model), 0))
    assert (f"Did you mean {meant}?" in failed.value.message) is (meant is not None)


def test_what_may_be_a_model_is_left_to_the_engine(tmp_path: Path) -> None:
    for model in (str(tmp_path), "kyutai/no-such-model", "pico"):
        check_models(plan(Settings(model=model), 0))
