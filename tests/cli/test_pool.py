"""What ``rtc-server pool`` has Ray run, and where."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from rtc_server.cli import engine
from rtc_server.cli import pool as pool_command
from rtc_server.cli.engine import planned
from rtc_server.cli.pool import placement, reached_at
from rtc_server.cluster.ray_launcher import RayLauncher
from rtc_server.config import EngineSettings, PoolSettings, Settings, parse
from rtc_server.engine.cluster_key import HINT
from rtc_server.errors import ConfigError
from tests.support.served import KEY

POOL = "10.0.0.1:7800"


def command(*arguments: str, service: str = "dialogue") -> list[str]:
    settings = parse(["--cluster-key", "/etc/cluster.key", *arguments], environment={})
    placed = placement(settings, PoolSettings(), service, POOL)
    assert (placed.host.service, placed.host.pool, placed.host.key_file) == (service, POOL, "/etc/cluster.key")
    return list(placed.host.command)


def test_an_engine_is_the_ordinary_program_with_what_is_set_of_its_model() -> None:
    arguments = ("--model", "a/b", "--slots", "3", "--allow-slow", "--device", "cuda", "--temperature", "0.5")
    own = command(*arguments)
    assert own[:2] == ["rtc_server.cli.hosted", "engine"]
    assert own[own.index("--pool") + 1] == POOL
    assert own[own.index("--engine-service") + 1] == "dialogue"
    rest = own[own.index("--drain-s") + 2 :]
    assert parse(rest, environment={}) == parse(list(arguments), environment={})


@pytest.mark.parametrize(
    ("arguments", "service", "gpus"),
    [
        (("--model", "a/b"), "dialogue", 1),
        (("--model", "auto"), "dialogue", 1),
        (("--model", "a/b", "--device", "cpu"), "dialogue", 0),
        (("--model", "pico"), "dialogue", 0),
        (("--model", "a/b", "--stt", "pico-stt"), "transcribe", 0),
        (("--model", "a/b", "--stt", "a/c"), "transcribe", 1),
        (("--model", "a/b"), "echo", 0),
    ],
)
def test_a_model_has_a_gpu_but_for_one_on_the_cpu(arguments: tuple[str, ...], service: str, gpus: float) -> None:
    settings = parse(["--cluster-key", "k", *arguments], environment={})
    assert placement(settings, PoolSettings(), service, POOL).gpus == gpus
    assert placement(settings, PoolSettings(gpus=0.5), service, POOL).gpus == 0.5


@pytest.mark.parametrize(
    ("listens", "reached"),
    [("0.0.0.0:7800", "10.0.0.9:7800"), ("[::]:7800", "10.0.0.9:7800"), ("pool.example.org:1", "pool.example.org:1")],
)
def test_engines_elsewhere_are_told_an_address_that_reaches_the_pool(listens: str, reached: str) -> None:
    assert reached_at(listens, "10.0.0.9") == reached


def test_an_engine_that_is_in_a_pool_has_its_model_itself() -> None:
    told: dict[str, Any] = {"pool": POOL, "cluster_key": "k", "model": "pico"}
    assert planned(Settings(**told), "dialogue").service == "dialogue"


def test_an_engine_that_translates_while_one_speaks_is_planned_and_in_no_pool(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x" * 32)
    told: dict[str, Any] = {"cluster_key": str(tmp_path / "key"), "device": "cpu"}
    with pytest.raises(ConfigError) as caught:
        planned(Settings(**told), "simultaneous")
    assert caught.value.hint == "Name one with --simultaneous."
    settings = Settings(simultaneous="kyutai/hibiki-1b-pytorch-bf16", **told)
    spec = planned(settings, "simultaneous")
    assert (spec.service, spec.options.slots) == ("simultaneous", 1)
    with pytest.raises(ConfigError, match="no engines of simultaneous"):
        engine.run(dataclasses.replace(settings, pool=POOL), EngineSettings(engine_service="simultaneous"))


@pytest.mark.parametrize("listens", ["127.0.0.1:0", "0.0.0.0:0"])
def test_a_pool_does_not_listen_without_a_key(listens: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who could tell it of engines could have every conversation brought to theirs."""
    monkeypatch.setattr(pool_command, "Pool", lambda *_: pytest.fail("it listens"))
    with pytest.raises(ConfigError, match="needs --cluster-key") as refused:
        pool_command.run(Settings(), PoolSettings(pool_listen=listens))
    assert refused.value.hint == HINT


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="package ray") as told:
        RayLauncher("auto", KEY)
    assert "rtc-server[cluster]" in (told.value.hint or "")
