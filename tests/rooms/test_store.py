"""The settings of the Redis that rooms last in, and one that wants a password, refuses or hangs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rtc_server.app import Server
from rtc_server.config import Settings
from rtc_server.errors import ConfigError, RoomsPaused
from rtc_server.rooms.store import Store, make_store
from tests.support.redis import redis_server
from tests.web.test_tls import issue


def test_without_the_setting_there_is_none() -> None:
    assert make_store(Settings()) is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"redis": "http://10.0.0.5:6379"}, "--redis is none of"),
        ({"redis": "redis:///0"}, "--redis is none of"),
        ({"redis": "10.0.0.5:6379"}, "--redis is none of"),
        ({"redis": "redis://:hush@10.0.0.5:6379/0"}, "has a password in it"),
        ({"redis": "redis://10.0.0.5:6379/0?db=1&password=hush"}, "has a password in it"),
        ({"redis": "redis://r", "redis_password": "a", "redis_password_file": "b"}, "both set"),
        ({"redis": "redis://r", "redis_password_file": "/nowhere/at/all"}, "cannot be read: No such file"),
        ({"redis": "redis://r", "redis_password_file": "/"}, "cannot be read: Is a directory"),
    ],
)
def test_what_is_wrong_with_it_is_said_and_no_password_with_it(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make_store(Settings(**settings))  # type: ignore[arg-type]
    assert said in refused.value.message
    assert "hush" not in f"{refused.value.message} {refused.value.hint}"


@pytest.mark.parametrize(("content", "said"), [(b" \n", "is empty"), (b"\xff\xfe", "it is not text")])
def test_a_file_without_a_password_is_none(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        make_store(Settings(redis="redis://r", redis_password_file=str(path)))


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "0.0.0.0"},
        {"host": "::"},
        {"tls": "self-signed"},
        {"node_url": "ftp://10.0.0.7"},
        {"node_url": "http://"},
        {"node_url": "http://10.0.0.7:8080/under"},
    ],
)
def test_a_node_that_others_would_not_find_does_not_start(settings: dict[str, Any]) -> None:
    settings = settings | {"allow_anonymous": "tls" not in settings, "redis": "redis://127.0.0.1:1"}
    with pytest.raises(ConfigError, match="--node-url"):
        Server(Settings(model="echo", stt="none", rooms="on", **settings))


async def test_the_password_opens_it_and_another_does_not(tmp_path: Path) -> None:
    async with redis_server() as redis:
        async with redis.client() as client:
            await client.config_set("requirepass", "hush hush")
        path = tmp_path / "password"
        path.write_text("hush hush\n")
        settings = ({"redis_password_file": str(path)}, {"redis_password": "hush hush"})
        for right in settings:
            store = make_store(Settings(redis=redis.url, **right))  # type: ignore[arg-type]
            assert store is not None
            assert await store.ask(("INCR", "n")) == [settings.index(right) + 1]
            assert store.answers
            await store.close()
        for wrong in ("", "hush"):
            store = Store(redis.url, wrong)
            told: list[bool] = []
            store.watch = told.append
            with pytest.raises(RoomsPaused):
                await store.ask(("GET", "n"))
            assert (store.answers, told) == (False, [False])
            with pytest.raises(RoomsPaused):
                store.require()
            await store.close()


async def test_over_tls_it_has_to_be_one_that_an_authority_vouches_for(tmp_path: Path) -> None:
    """That of the setting, or one of the machine's."""
    async with redis_server(tls=issue(tmp_path, "localhost")) as redis:
        ours, unknown = Store(redis.url), Store(redis.url.partition("?")[0])
        other = Store(redis.url.replace("localhost", "127.0.0.1"))
        assert await ours.ask(("PING",)) == [True]
        for store in (unknown, other):
            with pytest.raises(RoomsPaused):
                await store.ask(("PING",))
        for store in (ours, unknown, other):
            await store.close()


async def test_one_that_hangs_costs_its_deadline_and_is_known_again_when_it_answers() -> None:
    async with redis_server() as redis:
        store = Store(redis.url)
        told: list[bool] = []
        store.watch = told.append
        assert await store.ask(("PING",)) == [True]
        redis.stop()
        with pytest.raises(RoomsPaused):
            await store.ask(("PING",))
        assert not store.answers
        redis.go_on()
        assert await store.ask(("PING",)) == [True]
        assert told == [True, False, True]
        await store.close()


async def test_a_task_is_cancelled_at_whatever_point_of_its_question() -> None:
    """Otherwise a task that asks again and again has no end, and neither has what waits for it."""
    async with redis_server() as redis:
        store = Store(redis.url)
        cut = 0
        for turns in range(200):
            await store.run("return 1", [], ())  # it has a connection
            asked = asyncio.create_task(store.run("return 1", [], ()))
            for _ in range(turns):
                await asyncio.sleep(0)
            if asked.cancel():
                cut += 1
                await asyncio.wait({asked})
                assert asked.cancelled(), f"after {turns} turns of the loop"
        assert cut > 3, "few points were tried"
        await store.close()
