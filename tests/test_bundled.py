"""The bundled model has a name, and no other name is taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest

import rtc_server
from rtc_server import bundled


@pytest.mark.parametrize("model", [bundled.PICO, bundled.PICO_STT, bundled.PICO_STT_PT])
def test_it_lies_in_the_package(model: str) -> None:
    directory = bundled.directory_of(model)
    assert directory is not None
    assert directory.is_relative_to(Path(rtc_server.__file__).parent)
    assert bundled.is_complete(model)


def test_all_of_them_are_small_enough_to_come_with_the_package() -> None:
    """16 MB for the one that speaks, with the codec of all, and 8 MB for each of the two that transcribe."""
    directories = (bundled.directory_of(model) for model in (bundled.PICO, bundled.PICO_STT, bundled.PICO_STT_PT))
    assert sum(path.stat().st_size for directory in directories for path in directory.iterdir()) < 32_000_000


@pytest.mark.parametrize("model", ["", "echo", "./pico", "Pico", "pico/", "kyutai/pico", "/pico"])
def test_other_names_are_others(model: str) -> None:
    assert bundled.directory_of(model) is None


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "_DIRECTORIES", {"pico": tmp_path})
    assert bundled.missing_files("pico") == list(bundled.FILES)
    for name in bundled.FILES[1:]:
        (tmp_path / name).touch()
    assert bundled.missing_files("pico") == ["config.json"]
    (tmp_path / "config.json").touch()
    assert bundled.missing_files("pico") == []


def test_who_hears_through_the_codec_of_another_needs_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    monkeypatch.setattr(bundled, "_DIRECTORIES", {"pico-stt": own, "pico": other})
    for name in bundled.FILES:
        (own / name).touch()
    assert bundled.missing_files("pico-stt") == ["mimi.json", "mimi.safetensors"]
    for name in bundled.missing_files("pico-stt"):
        (other / name).touch()
    assert bundled.is_complete("pico-stt")
