"""``about.json`` is read as the protocol has it, within its bounds; without a good one a model is loaded as well."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server import bundled
from rtc_server.config import DEFAULT_MODEL
from rtc_server.engine.model import Example
from rtc_server.models.about import FILE_NAME, MAX_BYTES, About, languages_of, parse_about, read_about

PHRASES = {"topic": "Count", "say": ["count to ten", "stop", "go on"]}


def raw(**content: Any) -> bytes:
    return json.dumps(content).encode()


def test_all_that_it_can_say(tmp_path: Path) -> None:
    examples_told = [PHRASES, {"topic": "Größe", "say": ["é"]}]
    content = raw(notice="It is small.", hint="make serve", examples=examples_told, languages=["en", "yue"])
    (tmp_path / FILE_NAME).write_bytes(content)
    examples = (Example("Count", ("count to ten", "stop", "go on")), Example("Größe", ("é",)))
    assert read_about(tmp_path) == About("It is small.", "make serve", examples, ("en", "yue"))


@pytest.mark.parametrize("content", [raw(), raw(later=["something"]), raw(notice="", hint="", examples=[])])
def test_it_need_not_say_anything(content: bytes) -> None:
    assert parse_about(content) == About()


def test_there_need_not_be_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_about(tmp_path) == About()
    assert not caplog.records


BROKEN = [
    b"",
    b"{",
    b"\xff\xfe{}",
    b"[]",
    b"null",
    b"[" * 100_000,
    b" " * MAX_BYTES + b"{}",
    raw(notice=5),
    raw(notice=None),
    raw(notice="n" * 401),
    raw(hint="h" * 401),
    raw(notice=" loose"),
    raw(hint="\x1b[2Jmake serve"),
    raw(hint="make serve\nrm -r /"),
    raw(languages="en"),
    raw(languages=["EN"]),
    raw(languages=["pt-BR"]),
    raw(languages=["en "]),
    raw(languages=["en"] * 101),
    raw(examples={}),
    raw(examples=["hello"]),
    raw(examples=[PHRASES] * 25),
    raw(examples=[{"topic": "Count"}]),
    raw(examples=[{"say": ["one"]}]),
    raw(examples=[{"topic": "", "say": ["one"]}]),
    raw(examples=[{"topic": " ", "say": ["one"]}]),
    raw(examples=[{"topic": "t" * 61, "say": ["one"]}]),
    raw(examples=[{"topic": "Count", "say": []}]),
    raw(examples=[{"topic": "Count", "say": "one"}]),
    raw(examples=[{"topic": "Count", "say": [1]}]),
    raw(examples=[{"topic": "Count", "say": [""]}]),
    raw(examples=[{"topic": "Count", "say": ["\x85"]}]),
    raw(examples=[{"topic": "Count", "say": ["s" * 121]}]),
    raw(examples=[{"topic": "Count", "say": ["one"] * 13}]),
]


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: content[:60])
def test_what_cannot_be_used_is_logged_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert read_about(tmp_path) == About()
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{FILE_NAME} of {tmp_path.name} is left out: ")
    assert str(tmp_path) not in record.getMessage()


def test_one_that_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE_NAME).mkdir()
    assert read_about(tmp_path) == About()
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("name", "languages"),
    [
        ("kyutai/stt-1b-en_fr", ("en", "fr")),
        ("kyutai/stt-2.6b-en", ("en",)),
        ("stt-1b-en_fr", ("en", "fr")),
        ("kyutai/stt-1b-en_fr-candle", ("en", "fr")),
        ("kyutai/moshiko-pytorch-bf16", ("en",)),
        ("kyutai/hibiki-1b-pytorch-bf16", ("fr",)),
        ("kyutai/hibiki-zero-3b-pytorch-bf16", ("fr", "es", "pt", "de")),
        ("kyutai/something-else", ()),
        ("my-stt-1b-en", ()),
        ("echo", ()),
        ("", ()),
    ],
)
def test_languages_of_published_models_are_known_by_name(name: str, languages: tuple[str, ...]) -> None:
    assert languages_of(name, About()) == languages
    assert languages_of(name, About(languages=("pt",))) == ("pt",), "what the checkpoint tells goes first"


@pytest.mark.parametrize(("model", "hears"), [("pico", "en"), ("pico-stt", "en"), ("pico-stt-pt", "pt")])
def test_languages_of_the_bundled_models_are_told(model: str, hears: str) -> None:
    assert read_about(bundled.directory_of(model) or Path()).languages == (hears,)


@given(st.binary(max_size=200) | st.sampled_from(BROKEN[9:]).flatmap(lambda one: st.sampled_from([one, one[:-1]])))
def test_arbitrary_bytes_raise_nothing_but_what_is_caught(content: bytes) -> None:
    try:
        parse_about(content)
    except ValueError:
        return


def test_that_of_the_bundled_model() -> None:
    """It leads to the model that it names, and there is something to say first."""
    directory = bundled.directory_of(bundled.PICO)
    assert directory is not None
    about = parse_about((directory / FILE_NAME).read_bytes())
    assert about.notice
    assert about.hint == f"rtc-server serve --model {DEFAULT_MODEL}"
    assert about.examples[0].say[0] == "hello"
    assert len({example.topic for example in about.examples}) == len(about.examples) >= 5
