"""The bundled model has a name, and no other name is taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest

import rtc_server
from rtc_server import bundled


def test_it_lies_in_the_package() -> None:
    directory = bundled.directory_of("pico")
    assert directory is not None
    assert directory.is_relative_to(Path(rtc_server.__file__).parent)
    assert bundled.is_complete("pico")


@pytest.mark.parametrize("model", ["", "echo", "./pico", "Pico", "pico/", "kyutai/pico", "/pico"])
def test_other_names_are_others(model: str) -> None:
    assert bundled.directory_of(model) is None


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert bundled.missing_files(tmp_path) == list(bundled.FILES)
    for name in bundled.FILES[1:]:
        (tmp_path / name).touch()
    assert bundled.missing_files(tmp_path) == ["config.json"]
    (tmp_path / "config.json").touch()
    assert bundled.missing_files(tmp_path) == []
