"""``GET /api/config`` tells of each service what its model is, what is to be known of it, and what to say to it; and
``GET /status`` of what translates in rooms."""

from __future__ import annotations

import dataclasses

import pytest

from rtc_server.app import Server
from rtc_server.config import speaking_command
from rtc_server.engine.local import LocalLink
from rtc_server.engine.model import Example
from rtc_server.models.echo import EchoModel
from rtc_server.models.tiny import write_tiny_checkpoint
from rtc_server.translation import checkpoint_options
from tests.conftest import running_server, server_with
from tests.support.calls import get_json
from tests.support.fake_models import CountingModel

EXAMPLES = (Example("Count", ("count to ten", "stop")), Example("Greet it", ("hello",)))


def told(hint: str) -> CountingModel:
    model = CountingModel(2)
    model.info = dataclasses.replace(
        model.info, notice="It is small.", hint=hint, examples=EXAMPLES, languages=("en", "fr")
    )
    return model


@pytest.mark.parametrize("hint", ["make serve", ""])
async def test_a_model_that_tells_of_itself(hint: str) -> None:
    links = {"dialogue": lambda: LocalLink(lambda: told(hint)), "echo": lambda: LocalLink(lambda: EchoModel(1))}
    async with server_with(links) as server:
        _, config = await get_json(f"http://127.0.0.1:{server.port}/api/config")
        _, status = await get_json(f"http://127.0.0.1:{server.port}/status")
    assert config["notice"] is None
    dialogue, echo = config["services"]
    assert dialogue["notice"] == {"code": "model", "message": "It is small.", "hint": hint or None}
    assert dialogue["examples"] == [
        {"topic": "Count", "say": ["count to ten", "stop"]},
        {"topic": "Greet it", "say": ["hello"]},
    ]
    assert (echo["notice"], echo["examples"]) == (None, [])
    assert {name: engine["languages"] for name, engine in status["engines"].items()} == {
        "dialogue": ["en", "fr"],
        "echo": [],
    }


async def test_without_a_model_it_says_how_to_get_one(server: Server, base_url: str) -> None:
    _, config = await get_json(f"{base_url}/api/config")
    assert config["default_service"] == "echo"
    assert (config["notice"]["code"], config["notice"]["hint"]) == ("no_model", speaking_command())
    assert (await get_json(f"{base_url}/status"))[1]["translator"] is None


async def test_under_which_licence_rooms_are_translated_is_told_before_a_client_asks_for_rooms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoint_options, "PACKAGES", ())
    large = checkpoint_options.LARGE
    async with running_server("--model", "echo", "--vad", "off", "--rooms", "on", "--translate", large) as server:
        _, status = await get_json(f"http://127.0.0.1:{server.port}/status")
    assert status["translator"] == {"model": large, "pairs": [], "notice": checkpoint_options.NOTICE}


async def test_the_bundled_model_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Under its name, with the phrases beside its weights, and room for four. Random weights stand in for its own."""
    directory = write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "stand-in")
    (directory / "about.json").write_text('{"notice": "A stand-in.", "examples": [{"topic": "T", "say": ["hello"]}]}')
    monkeypatch.setattr("rtc_server.bundled._DIRECTORIES", {"pico": directory})
    monkeypatch.setattr("rtc_server.system.hardware.cuda_devices", lambda: 0)
    # In a thread, where the stand-in is known as well.
    async with running_server("--engine", "thread", "--vad", "off", "--threads", "1") as server:
        url = f"http://127.0.0.1:{server.port}"
        _, config = await get_json(f"{url}/api/config")
        _, status = await get_json(f"{url}/status")
    assert config["default_service"] == "dialogue"
    service = config["services"][0]
    assert (service["model"], service["kind"], service["device"], service["slots"]) == ("pico", "dialogue", "cpu", 4)
    assert service["notice"]["message"] == "A stand-in."
    assert service["examples"] == [{"topic": "T", "say": ["hello"]}]
    assert [each["name"] for each in config["services"]] == ["dialogue", "echo"]
    assert status["engines"]["dialogue"]["model"] == "pico"
    memory = status["engines"]["dialogue"]["memory"]
    assert memory["weights_bytes"] > memory["cache_bytes"] > 0
    assert memory["session_bytes"] == memory["cache_bytes"] // 4
    assert status["engines"]["echo"]["memory"] is None
    assert "stand-in" not in f"{config['services']}{status}".replace("A stand-in.", "")
