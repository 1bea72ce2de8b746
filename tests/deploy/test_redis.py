"""The Redis of the manifests: media nodes find it, it takes its configuration and its password, and its probe tells."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.servers import free_port
from lab.waiting import until_told
from rtc_server import config
from rtc_server.cli.main import _parser
from rtc_server.config import Settings
from rtc_server.errors import RoomsPaused
from rtc_server.rooms.store import Store, make_store
from tests.conftest import need_commands
from tests.deploy.manifests import Pod, of_kind, others, pods

PASSWORD = 'a "password" \\ with $all that %s a file may have'
REDIS = [pod for pod in others() if pod.name == "redis"]
OF_EACH = pytest.mark.parametrize("pod", REDIS, ids=lambda pod: pod.overlay)


def media_settings(overlay: str) -> Settings:
    (media,) = [each for each in pods() if (each.overlay, each.name) == (overlay, "media")]
    return config.from_arguments(_parser().parse_args(["serve"]), media.settings_environment)


def test_an_overlay_has_it() -> None:
    assert REDIS


@OF_EACH
def test_media_nodes_find_it_and_each_other(pod: Pod, tmp_path: Path) -> None:
    """By a name that there is; and each other as :mod:`tests.deploy.test_manifests` holds it."""
    settings = media_settings(pod.overlay)
    (service,) = [each for each in of_kind(pod.overlay, "Service") if each["metadata"]["name"] == "redis"]
    (port,) = service["spec"]["ports"]
    (listened,) = pod.container["ports"]
    assert settings.redis == f"redis://redis:{port['port']}/0"
    assert (port["targetPort"], listened["containerPort"]) == (listened["name"], port["port"])
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    assert make_store(config.Settings(redis=settings.redis, redis_password_file=str(secret))) is not None
    mounted = {each["mountPath"]: each["name"] for each in pod.container["volumeMounts"]}
    assert mounted[str(Path(settings.redis_password_file).parent)] == "password", "the same file for both"


@OF_EACH
def test_it_may_do_nothing_that_it_does_not_need(pod: Pod) -> None:
    assert pod.spec["securityContext"]["runAsNonRoot"]
    assert pod.spec["automountServiceAccountToken"] is False
    assert pod.container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (policy,) = [each["spec"] for each in of_kind(pod.overlay, "NetworkPolicy") if each["metadata"]["name"] == "redis"]
    assert [rule["ports"] for rule in policy["ingress"]] == [[{"protocol": "TCP", "port": 6379}]]
    assert policy["egress"] == []


@contextlib.asynccontextmanager
async def running(pod: Pod, directory: Path) -> AsyncIterator[tuple[int, str]]:
    """As the pod has it, but in ``directory`` and at a port of its own; and the command of its probe."""
    need_commands("redis-server", "redis-cli")
    (conf,) = [each["data"] for each in of_kind(pod.overlay, "ConfigMap") if "redis.conf" in each["data"]]
    port = free_port()
    for name in ("data", "tmp", "etc", "secrets"):
        (directory / name).mkdir()
    text = conf["redis.conf"].replace("port 6379", f"port {port}").replace("dir /data", f"dir {directory}/data")
    (directory / "etc" / "redis.conf").write_text(text)
    (directory / "secrets" / "password").write_text(f"{PASSWORD}\n")

    def moved(command: str) -> str:
        places = {"/etc/redis": "etc", "/run/secrets/rtc-server-redis": "secrets", "/tmp": "tmp"}
        here = re.sub("|".join(places), lambda found: f"{directory}/{places[found[0]]}", command)
        return here.replace("redis-cli", f"redis-cli -p {port}")

    shell, dash_c, script = pod.container["command"]
    process = await asyncio.create_subprocess_exec(
        shell, dash_c, moved(script), stdout=asyncio.subprocess.DEVNULL, cwd=directory
    )
    try:
        yield port, moved(pod.container["livenessProbe"]["exec"]["command"][2])
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@OF_EACH
async def test_it_asks_for_its_password_and_its_probe_tells(pod: Pod, tmp_path: Path) -> None:
    async def healthy() -> bool:
        asked = await asyncio.create_subprocess_exec("sh", "-c", probe, stderr=asyncio.subprocess.DEVNULL)
        return await asked.wait() == 0

    async with running(pod, tmp_path) as (port, probe):
        await until_told(healthy, "an answer to the probe", 30.0, 0.2)
        url = f"redis://127.0.0.1:{port}/0"
        ours, stranger = Store(url, PASSWORD), Store(url, "another")
        try:
            assert await ours.ask(("SET", "key", "value"), ("GET", "key")) == [True, b"value"]
            with pytest.raises(RoomsPaused):
                await stranger.ask(("GET", "key"))
            (told,) = await ours.ask(("CONFIG", "GET", "maxmemory"))
            most_bytes = int(next(iter(told.values())))
            limit = pod.container["resources"]["limits"]["memory"]
            assert 0 < most_bytes * 1.5 < int(limit.removesuffix("Mi")) << 20, "it forks to rewrite its file"
            assert (tmp_path / "data" / "appendonlydir").is_dir()
        finally:
            await ours.close()
            await stranger.close()
    assert not await healthy()
