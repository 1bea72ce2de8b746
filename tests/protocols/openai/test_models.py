"""What a model's name means: a service, the model behind it, or a name that clients have written into them."""

from __future__ import annotations

import pytest

from rtc_server.protocols.openai.models import ModelNames, Served, UnknownModel, describe, names_of

PICO = [Served("dialogue", "pico"), Served("transcribe", "pico-stt"), Served("echo", "echo")]
ECHO = [Served("echo", "echo")]


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("dialogue", "dialogue"),
        ("pico", "dialogue"),
        ("pico-stt", "transcribe"),
        ("echo", "echo"),
        ("gpt-realtime", "dialogue"),
        ("gpt-realtime-mini-2025-12-15", "dialogue"),
        ("gpt-live", "dialogue"),
        ("gpt-live-1", "dialogue"),
        ("gpt-4o-realtime-preview", "dialogue"),
        ("gpt-realtime-whisper", "transcribe"),
    ],
)
def test_names_that_are_known(name: str, service: str) -> None:
    assert ModelNames({}).service_of(name, PICO) == service


@pytest.mark.parametrize("name", ["gpt-5", "", "*", "gpt-real", "Pico", "default", "gpt-realtime*x"[:3]])
def test_names_that_are_not(name: str) -> None:
    with pytest.raises(UnknownModel) as refused:
        ModelNames({}).service_of(name, PICO)
    assert refused.value.message == (
        "There is no such model. This server has: dialogue, pico, transcribe, pico-stt, echo."
    )


def test_an_alias_of_what_is_not_served_is_none() -> None:
    assert ModelNames({}).service_of("gpt-realtime", ECHO) == "echo", "the first is the default"
    with pytest.raises(UnknownModel):
        ModelNames({}).service_of("gpt-realtime-whisper", ECHO)


def test_the_operators_aliases_come_first_and_the_longest_of_them() -> None:
    aliases = {"gpt-realtime*": "echo", "gpt-realtime-mini*": "transcribe", "gpt-realtime-mini-1": "dialogue"}
    names = ModelNames({**aliases, "tts": "echo"})
    assert names.service_of("gpt-realtime", PICO) == "echo"
    assert names.service_of("gpt-realtime-mini-2", PICO) == "transcribe"
    assert names.service_of("gpt-realtime-mini-1", PICO) == "dialogue"
    assert names.service_of("tts", PICO) == "echo"
    assert names.service_of("gpt-live", PICO) == "dialogue", "those that are there anyway stay"


def test_a_name_of_what_is_served_is_no_alias() -> None:
    assert ModelNames({"pico": "echo"}).service_of("pico", PICO) == "dialogue"


def test_a_model_that_is_loading_has_no_name_yet() -> None:
    served = [Served("dialogue", None), Served("echo", "echo")]
    assert names_of(served) == ["dialogue", "echo"]
    assert ModelNames({}).service_of("gpt-realtime", served) == "dialogue"


def test_a_model_as_it_is_listed() -> None:
    assert describe("pico", 1) == {"id": "pico", "object": "model", "created": 1, "owned_by": "rtc-server"}
