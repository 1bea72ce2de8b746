"""The two media nodes of ``deploy/compose`` and their Redis: the services are what the command line takes, agree with
each other, and behind a real nginx with its configuration every request gets to the node that it is for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from lab.engine_process import key_file
from lab.servers import free_port
from lab.serving import started
from lab.waiting import until_told
from rtc_server import config
from rtc_server.app import Server, _check_node_url
from rtc_server.cli.main import _parser
from rtc_server.client import VoiceClient
from rtc_server.cluster import probe as pool_probe
from rtc_server.config import ENV_PREFIX, EngineSettings, RelaySettings, Settings
from rtc_server.engine import probe
from rtc_server.errors import RoomsPaused
from rtc_server.rooms.store import Store, make_store
from rtc_server.services import pool_address, pooled_services
from rtc_server.turn import coturn
from tests.conftest import UNLIMITED, need_commands
from tests.support.nginx import nginx_with
from tests.support.served import served
from tests.support.server_process import ROOT

DIRECTORY = ROOT / "deploy" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((DIRECTORY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
NGINX = (DIRECTORY / "nginx.conf").read_text()
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "rtc-server"}
MEDIA = ("media-a", "media-b")
ENGINES = ("engine-a", "engine-b")
GIVEN = {
    "TURN_HOST": "turn.example.org",
    "PUBLIC_IP": "198.51.100.7/10.0.0.7",
    "VOICE_HOST": "voice.example.org",
}
CLOSING_S = 10
PASSWORD = 'a "password" \\ with $all that %s a file may have'
ENDINGS = (
    ("DELETE", "/api/sessions/{}"),
    ("POST", "/v1/realtime/calls/rtc_{}/hangup"),
    ("POST", "/v1/live/sessions/live_{}/hangup"),
    ("DELETE", "/whip/echo/{}"),
)


def environment_of(name: str) -> dict[str, str]:
    """As Compose would set it."""
    return {
        key: re.sub(r"\$\{(\w+)(?::?[-?][^}]*)?\}", lambda found: GIVEN[found[1]], value)
        for key, value in SERVICES[name]["environment"].items()
    }


def settings_of(name: str) -> Settings:
    return config.from_arguments(_parser().parse_args(SERVICES[name]["command"]), environment_of(name))


def engine_settings(name: str) -> EngineSettings:
    return config.engine_from_arguments(_parser().parse_args(SERVICES[name]["command"]), environment_of(name))


def seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([sm])", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


def ports(text: str) -> range:
    low, high = map(int, text.split("-"))
    return range(low, high + 1)


@pytest.mark.parametrize("path", ["deploy/compose/compose.yaml", "turn/compose.yaml"])
def test_it_is_what_the_specification_of_compose_says(path: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(ROOT / path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", OURS)
def test_a_service_runs_a_command_with_settings_that_exist(name: str) -> None:
    service, environment = SERVICES[name], environment_of(name)
    assert all(key.startswith(ENV_PREFIX) for key in environment)
    settings_of(name)
    if name == "relay":
        relay = config.relay_from_arguments(_parser().parse_args(["turn"]), environment)
        assert "external-ip=198.51.100.7/10.0.0.7" in coturn.render(settings_of(name), relay, "a-secret-of-the-tests")
    named = {value.removeprefix("/run/secrets/") for value in environment.values() if value.startswith("/run/")}
    assert named == set(service["secrets"]) <= set(COMPOSE["secrets"])
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


def test_media_nodes_differ_in_what_they_must_and_in_nothing_else() -> None:
    a, b = map(environment_of, MEDIA)
    assert {key for key in a if a[key] != b[key]} == {
        f"{ENV_PREFIX}{name}" for name in ("NODE", "NODE_URL", "PORT", "UDP_PORTS")
    }
    relay = environment_of("relay")["RTC_SERVER_TURN_RELAY_PORTS"]
    taken = Counter(
        port for text in (a["RTC_SERVER_UDP_PORTS"], b["RTC_SERVER_UDP_PORTS"], relay) for port in ports(text)
    )
    assert set(taken.values()) == {1}, "the same ports twice"
    assert relay == RelaySettings().turn_relay_ports


def test_all_find_the_pool_and_engines_do_not_take_each_others_port() -> None:
    pool = config.pool_from_arguments(_parser().parse_args(["pool"]), environment_of("pool"))
    for name in (*MEDIA, *ENGINES):
        assert pool_address(settings_of(name)) == pool.pool_listen
        assert settings_of(name).cluster_key == settings_of("pool").cluster_key
    listening = {"pool": pool.pool_listen, **{name: engine_settings(name).engine_listen for name in ENGINES}}
    assert len(set(listening.values())) == len(listening)
    for name, address in listening.items():
        module = (pool_probe if name == "pool" else probe).__name__
        command = SERVICES[name]["healthcheck"]["test"]
        assert command == ["CMD", "python", "-m", module, address, settings_of(name).cluster_key]
    assert {engine_settings(name).engine_service for name in ENGINES} == set(pooled_services(settings_of(MEDIA[0])))


@contextlib.asynccontextmanager
async def running_redis(where: Path) -> AsyncIterator[tuple[int, str]]:
    """As Compose would start it, but in ``where`` and at a port of its own; and the command of its health check."""
    need_commands("redis-server", "redis-cli")
    port = free_port()
    (where / "redis_password").write_text(f"{PASSWORD}\n")
    named = f"port {settings_of(MEDIA[0]).redis.rpartition(':')[2].partition('/')[0]}\n"
    text = (DIRECTORY / "redis.conf").read_text()
    assert named in text
    (where / "given.conf").write_text(text.replace(named, f"port {port}\n").replace("dir /tmp", f"dir {where}"))

    def moved(command: str) -> str:
        assert "$" not in command.replace("$$", ""), "Compose would put something in its place"
        places = {"/etc/redis/redis.conf": "given.conf", "/run/secrets/": "", "/tmp/": ""}
        here = re.sub("|".join(places), lambda found: f"{where}/{places[found[0]]}", command.replace("$$", "$"))
        return here.replace("redis-cli", f"redis-cli -p {port}")

    *shell, script = SERVICES["redis"]["command"]
    assert shell == ["sh", "-c"]
    process = await asyncio.create_subprocess_exec(*shell, moved(script), stdout=asyncio.subprocess.DEVNULL)
    try:
        yield port, moved(SERVICES["redis"]["healthcheck"]["test"][1])
    finally:
        process.kill()
        await process.wait()


async def test_redis_takes_its_password_from_the_secret_and_its_health_check_tells(tmp_path: Path) -> None:
    async def healthy() -> bool:
        asked = await asyncio.create_subprocess_exec("sh", "-c", check, stderr=asyncio.subprocess.DEVNULL)
        return await asked.wait() == 0

    async with running_redis(tmp_path) as (port, check):
        await until_told(healthy, "an answer to the health check", 30.0, 0.2)
        (where := tmp_path / "of-a-node").write_text(PASSWORD)
        url = f"redis://127.0.0.1:{port}/0"
        ours, stranger = make_store(Settings(redis=url, redis_password_file=str(where))), Store(url, "another")
        assert ours is not None
        try:
            assert await ours.ask(("SET", "key", "value"), ("GET", "key")) == [True, b"value"]
            with pytest.raises(RoomsPaused):
                await stranger.ask(("GET", "key"))
        finally:
            await ours.close()
            await stranger.close()
    assert not await healthy()


def test_media_nodes_share_a_redis_and_reach_each_other() -> None:
    (url,) = {settings_of(name).redis for name in MEDIA}
    assert url.startswith("redis://127.0.0.1:")
    for name in MEDIA:
        settings = settings_of(name)
        assert settings.redis_password_file.removeprefix("/run/secrets/") in SERVICES["redis"]["secrets"]
        assert not settings.redis_password
        assert settings.node_url == f"http://{settings.host}:{settings.port}"
        _check_node_url(settings)
    redis = SERVICES["redis"]
    assert (redis["read_only"], redis["cap_drop"], redis["user"]) == (True, ["ALL"], "1000:1000")
    assert SERVICES[MEDIA[0]]["build"]["args"]["EXTRAS"] == "[rooms,redis]"


def test_they_end_one_after_the_other() -> None:
    """Though they are told in the same moment: each within what Docker gives it, the engines last."""
    for name in (*MEDIA, *ENGINES):
        assert seconds(SERVICES[name]["stop_grace_period"]) >= settings_of(name).drain_s + CLOSING_S
    assert all(settings_of(engine).drain_s > settings_of(media).drain_s for engine in ENGINES for media in MEDIA)


def test_no_secret_is_checked_in() -> None:
    for secret in (*COMPOSE["secrets"].values(), {"file": ".env"}, {"file": "tls/privkey.pem"}):
        path = (DIRECTORY / secret["file"]).relative_to(ROOT)
        assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0, path


async def test_the_health_check_of_a_media_node_tells(tmp_path: Path) -> None:
    for name in MEDIA:
        cmd, python, *arguments = SERVICES[name]["healthcheck"]["test"]
        assert (cmd, python) == ("CMD", "python")
        async with nodes(tmp_path) as (a, _):
            healthy = await _status(arguments, a.port)
        assert (healthy, await _status(arguments, a.port)) == (0, 1)


async def _status(arguments: list[str], port: int) -> int:
    environment = {**os.environ, "RTC_SERVER_PORT": str(port)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait()


@contextlib.asynccontextmanager
async def nodes(where: Path) -> AsyncIterator[tuple[Server, Server]]:
    """Two media nodes named as in Compose, with one engine."""
    with served(slots=4) as engine:
        arguments = ["--engine-at", f"echo={engine.address}", "--cluster-key", str(key_file(where)), "--model", "echo"]
        shared = [*arguments, "--allow-anonymous", "--trusted-proxies", "127.0.0.1", "--drain-s", "0", "--port", "0"]
        names = (settings_of(name).node for name in MEDIA)
        servers = [Server(config.parse([*shared, *UNLIMITED, "--node", node])) for node in names]
        async with contextlib.AsyncExitStack() as stack:
            for server in servers:
                await stack.enter_async_context(started(server))
                await server.wait_ready()
            yield servers[0], servers[1]


@dataclass(frozen=True, slots=True)
class Cluster:
    url: str
    nodes: dict[str, Server]

    def owner(self, session: str) -> Server:
        """By the id."""
        return self.nodes[session.partition("-")[0]]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    need_commands("nginx")
    async with nodes(tmp_path) as (a, b):
        text = NGINX.replace("listen 443 ssl;", "listen 127.0.0.1:{port};").replace("${VOICE_HOST}", "localhost")
        text = re.sub(r"\n *ssl_certificate.*", "", text).replace("/dev/stdout", f"{tmp_path}/voice.log")
        for name, server in zip(MEDIA, (a, b), strict=True):
            assert f"127.0.0.1:{settings_of(name).port}" in text
            text = text.replace(f"127.0.0.1:{settings_of(name).port}", f"127.0.0.1:{server.port}")
        async with nginx_with(text, tmp_path) as nginx:
            yield Cluster(nginx.url(), {server.settings.node: server for server in (a, b)})


async def test_requests_about_a_session_get_to_its_node(cluster: Cluster) -> None:
    """Of sessions of both nodes, by each kind of path that has an id in it."""
    async with aiohttp.ClientSession() as http, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(VoiceClient(cluster.url)) for _ in range(4)]
        sessions = [str(client.session) for client in clients]
        assert {cluster.owner(session) for session in sessions} == set(cluster.nodes.values()), "both take callers"
        for client, session in zip(clients, sessions, strict=True):
            await client.wait_for("connected")
            owner = cluster.owner(session)
            other = next(node for node in cluster.nodes.values() if node is not owner)
            async with http.get(f"{cluster.url}/api/sessions/{session}") as response:
                assert response.status == 200
            async with http.get(f"http://127.0.0.1:{other.port}/api/sessions/{session}") as response:
                assert response.status == 404, "only the proxy makes the difference"
            async with http.get(f"{cluster.url}/api/sessions/{session}/events") as response:
                assert response.status == 200
                assert (await response.content.readuntil(b"\n\n")).startswith(b"id: 1\n")
        for method, path in ENDINGS:
            session = sessions.pop()
            async with http.request(method, cluster.url + path.format(session)) as response:
                assert response.ok, path
            owner = cluster.owner(session)
            async with http.get(f"http://127.0.0.1:{owner.port}/api/sessions/{session}") as response:
                assert response.status == 404, "it has ended"
        async with http.get(f"{cluster.url}/") as response:
            assert response.status == 200


async def test_a_node_that_is_gone_or_ends_costs_newcomers_nothing(cluster: Cluster) -> None:
    a, b = cluster.nodes.values()
    a.admission.draining = True
    for _ in range(3):
        async with VoiceClient(cluster.url) as client:
            await client.wait_for("connected")
            assert cluster.owner(str(client.session)) is b
    a.admission.draining = False
    await b.stop(0)
    for _ in range(3):
        async with VoiceClient(cluster.url) as client:
            await client.wait_for("connected")
            assert cluster.owner(str(client.session)) is a


def test_the_proxy_keeps_what_the_documented_one_has() -> None:
    """The lines of ``docs/deploy.md`` that matter to what gets through."""
    for line in re.findall(
        r"^    (?:proxy_set_header|proxy_http_version|client_max_body_size)[^;]*;", DOCUMENTED, re.MULTILINE
    ):
        assert line in NGINX, line
    (vouched,) = {settings_of(name).trusted_proxies for name in MEDIA}
    assert vouched == ("127.0.0.1",)


DOCUMENTED = (ROOT / "docs" / "deploy.md").read_text()
