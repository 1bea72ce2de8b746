"""``GET /v1/models`` and client secrets, asked for by OpenAI's own client."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from rtc_server.access import credentials
from rtc_server.app import Server
from rtc_server.config import parse
from rtc_server.errors import ConfigError
from tests.conftest import running_server


@contextlib.asynccontextmanager
async def client_of(server: Server, key: str = "any") -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=key, max_retries=0) as client:
        yield client


@contextlib.asynccontextmanager
async def locked_server(directory: Path, *arguments: str) -> AsyncIterator[tuple[Server, str, str]]:
    """With a key for all services, and one for ``transcribe`` alone, which this server does not have."""
    keys = [credentials.new_key(), credentials.new_key()]
    entries = [
        f'[[keys]]\nname = "{name}"\nhash = "{credentials.hash_of(key)}"\n{more}'
        for name, key, more in zip(("all", "few"), keys, ("", 'services = ["transcribe"]\n'), strict=True)
    ]
    path = directory / "auth.toml"
    path.write_text("".join(entries))
    async with running_server("--model", "echo", "--auth", str(path), *arguments) as server:
        yield server, keys[0], keys[1]


async def test_what_is_served_is_listed(server: Server) -> None:
    """Any key is taken on a server without ``--auth``."""
    async with client_of(server) as client:
        listed = [model async for model in client.models.list()]
        assert [model.id for model in listed] == ["echo"]
        assert abs(listed[0].created - time.time()) < 300
        assert (await client.models.retrieve("gpt-realtime")).id == "gpt-realtime"
        with pytest.raises(openai.NotFoundError) as refused:
            await client.models.retrieve("gpt-5")
        assert refused.value.code == "model_not_found"


async def test_with_auth_a_key_is_wanted_and_sees_what_it_opens(tmp_path: Path) -> None:
    async with locked_server(tmp_path) as (server, key, few):
        async with client_of(server, "wrong") as client:
            with pytest.raises(openai.AuthenticationError) as refused:
                await client.models.list()
            assert refused.value.code == "invalid_api_key"
        async with client_of(server, key) as client:
            assert [model.id async for model in client.models.list()] == ["echo"]
        async with client_of(server, few) as client:
            assert [model.id async for model in client.models.list()] == []


async def test_a_client_secret_is_a_key(tmp_path: Path) -> None:
    async with locked_server(tmp_path) as (server, key, _):
        async with client_of(server, key) as client:
            secret = await client.realtime.client_secrets.create(
                expires_after={"anchor": "created_at", "seconds": 10},
                session={"type": "realtime", "model": "gpt-realtime", "instructions": "Be kind."},
            )
            assert secret.value.startswith("ek_")
            assert 5 < secret.expires_at - time.time() <= 10
            session: Any = secret.session
            assert (session.type, session.model, session.instructions) == ("realtime", "gpt-realtime", "Be kind.")
        async with client_of(server, secret.value) as client:
            assert [model.id async for model in client.models.list()] == ["echo"]
            with pytest.raises(openai.PermissionDeniedError):
                await client.realtime.client_secrets.create()
            server.access.today = lambda: time.time() + 10
            with pytest.raises(openai.AuthenticationError):
                await client.models.list()


async def test_without_auth_a_client_secret_is_made_as_well(server: Server) -> None:
    async with client_of(server) as client:
        secret = await client.realtime.client_secrets.create()
        assert 500 < secret.expires_at - time.time() <= 600
        assert (await client.with_options(api_key=secret.value).models.retrieve("echo")).id == "echo"


async def test_a_server_that_stops_makes_no_client_secret(server: Server) -> None:
    """None outlives it."""
    server.admission.draining = True
    async with client_of(server) as client:
        with pytest.raises(openai.InternalServerError) as refused:
            await client.with_options(max_retries=0).realtime.client_secrets.create()
        assert (refused.value.status_code, refused.value.code) == (503, "draining")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"expires_after": {"anchor": "created_at", "seconds": 9}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "created_at", "seconds": 7201}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "now"}}, "expires_after.anchor"),
        ({"session": []}, "session"),
        ({"session": {"model": 5}}, "session.model"),
        ({"session": {"type": "telepathy"}}, "session.type"),
        ({"session": {"audio": {"input": {"format": {"type": "audio/mp3"}}}}}, "session.audio.input.format"),
    ],
)
async def test_a_client_secret_that_cannot_be(server: Server, body: dict[str, Any], param: str) -> None:
    async with client_of(server) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.post("/realtime/client_secrets", body=body, cast_to=object)
        assert refused.value.param == param


async def test_a_client_secret_for_what_the_key_does_not_open(tmp_path: Path) -> None:
    async with locked_server(tmp_path) as (server, _, few), client_of(server, few) as client:
        with pytest.raises(openai.PermissionDeniedError):
            await client.realtime.client_secrets.create(session={"type": "realtime", "model": "echo"})
        with pytest.raises(openai.NotFoundError):
            await client.realtime.client_secrets.create(session={"type": "realtime", "model": "gpt-5"})


@pytest.mark.parametrize("alias", ["x", "=echo", "x=", "a b=echo", "a*b=echo", "x=a b"])
def test_an_alias_that_is_none(alias: str) -> None:
    with pytest.raises(ConfigError, match="is not NAME=SERVICE"):
        Server(parse(["--model", "echo", "--model-alias", alias], environment={}))


async def test_aliases_of_the_operators() -> None:
    aliases = ("--model-alias", "tts-1=echo,my-*=default")
    async with running_server("--model", "echo", *aliases) as server, client_of(server) as client:
        for name in ("tts-1", "my-model"):
            assert (await client.models.retrieve(name)).id == name
    with pytest.raises(ConfigError, match="there is no service dialogue"):
        Server(parse(["--model", "echo", "--model-alias", "x=dialogue"], environment={}))
