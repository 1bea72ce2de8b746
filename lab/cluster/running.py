"""The programs of the cluster: how each is started, where it is, and which process of it does what."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from lab.cluster.kept import Kept, python
from lab.engine_process import key_file
from lab.network.front import Front
from lab.pool_process import hosted_engines
from lab.program import without_settings
from lab.ray_cluster import RayCluster, ray_cluster
from lab.ray_cluster import environment as ray_environment
from lab.servers import free_port
from lab.waiting import until, until_told
from rtc_server.cluster import probe as pool_probe
from rtc_server.engine import probe as engine_probe
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.errors import NoEngine

NODES: Final = ("a", "b")
MACHINES: Final = 2
_SLOTS: Final = 2
_READY_S: Final = 300.0
_ENDED_S: Final = 30.0
_OURS: Final = "rtc_server.cli.hosted"
"""Programs that end with the one that started them, whatever becomes of that."""
_LOOK_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Cluster:
    """``url``: the address of all. ``nodes``: media nodes by their names; ``urls``: their own addresses."""

    url: str
    nodes: dict[str, Kept]
    urls: dict[str, str]
    pool: Kept
    pool_address: str
    ray: RayCluster
    directory: Path
    _key: ClusterKey = field(repr=False)

    def engines(self) -> list[psutil.Process]:
        """On both pretended machines."""
        return hosted_engines(self.directory)

    async def engine_in_use(self) -> psutil.Process:
        """The engine of which slots are taken."""
        while True:
            found = await asyncio.to_thread(self._in_use)
            if found is not None:
                return found
            await asyncio.sleep(_LOOK_S)

    async def wait_engines(self) -> None:
        """Until there are as many as there are machines, and a model is loaded in each. Raises AssertionError if that
        takes too long."""

        async def all_ready() -> bool:
            return len(await asyncio.to_thread(self._ready)) == MACHINES

        await until_told(all_ready, "an engine that is ready on each machine", _READY_S, _LOOK_S)

    def _ready(self) -> dict[str, str]:
        """Addresses of engines that take conversations, and their lives."""
        try:
            report = pool_probe.ask(self.pool_address, self._key)
        except NoEngine:
            return {}
        ready = report.ready("dialogue")
        return {each.address: each.life for each in report.engines if each.address in ready}

    def _in_use(self) -> psutil.Process | None:
        for address, life in self._ready().items():
            with contextlib.suppress(NoEngine, psutil.Error):
                if engine_probe.ask(address, self._key).used:
                    return next((each for each in self.engines() if life in each.cmdline()), None)
        return None


@contextlib.asynccontextmanager
async def cluster(tell: Callable[[str], None], host: str, port: int) -> AsyncIterator[Cluster]:
    """Ready, with an engine on each machine; at the end nothing of it is left. ``tell``: called with what happens, a
    line each. Raises OSError if ``port`` is taken, RuntimeError or AssertionError if a program does not start."""
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rtc-cluster-")))
        secret = key_file(directory)
        key = ClusterKey.read(secret)
        ports = {name: free_port() for name in NODES}
        urls = {name: f"http://localhost:{own}" for name, own in ports.items()}
        front = Front({name: f"127.0.0.1:{own}" for name, own in ports.items()})
        port = await stack.enter_async_context(front.listening(host, port))
        pool_address = f"127.0.0.1:{free_port()}"
        shared = ("--pool", pool_address, "--cluster-key", str(secret))
        nodes = {
            name: Kept(f"media node {name}", _node(name, ports[name], shared), without_settings(), "http://", tell)
            for name in NODES
        }
        tell(f"starting {len(NODES)} media nodes, and Ray, with {MACHINES} pretended machines of a GPU each")
        first_ready = [await stack.enter_async_context(node.running()) for node in nodes.values()]
        stack.push_async_callback(_engines_ended, directory)
        ray = await stack.enter_async_context(ray_cluster(MACHINES))
        tell(f"starting the pool at {pool_address}, and an engine on each machine")
        pool = Kept("the pool", _pool(pool_address, secret, ray.address), ray_environment(), r"A pool at", tell)
        first_ready.append(await stack.enter_async_context(pool.running()))
        for ready in first_ready:
            await ready()
        made = Cluster(f"http://localhost:{port}", nodes, urls, pool, pool_address, ray, directory, key)
        await made.wait_engines()
        async with _machines_kept(ray, tell):
            yield made


def machine_of(engine: psutil.Process) -> list[psutil.Process]:
    """The processes whose end is that of the pretended machine on which an engine is: Ray's, the actor's, its own."""
    host = engine.parent()
    assert host is not None
    return [psutil.Process(int(engine.environ()["RAY_RAYLET_PID"])), host, engine]


def _pool(address: str, secret: Path, ray: str) -> Sequence[str]:
    many = str(MACHINES)
    return python(
        *(_OURS, "pool", "--pool-listen", address, "--cluster-key", str(secret), "--ray-address", ray),
        *("--services", "dialogue", "--min", many, "--max", many, "--gpus", "1"),
        *("--model", "pico", "--slots", str(_SLOTS), "--allow-slow"),
    )


def _node(name: str, port: int, shared: Sequence[str]) -> Sequence[str]:
    own = ("--node", name, "--port", str(port), "--stt", "none")
    return python(_OURS, "serve", *own, *shared)


async def _engines_ended(directory: Path) -> None:
    """They end with what runs them, when Ray does; by force what has not."""
    try:
        await until(lambda: not hosted_engines(directory), "the end of all engines", _ENDED_S)
    except AssertionError:
        for engine in hosted_engines(directory):
            with contextlib.suppress(psutil.Error):
                engine.kill()


@contextlib.asynccontextmanager
async def _machines_kept(ray: RayCluster, tell: Callable[[str], None]) -> AsyncIterator[None]:
    """A pretended machine that has ended is started again, as long as there is a head."""

    async def keep() -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if ray.head() and len(ray.machines()) < MACHINES:
                tell("a machine with a GPU has ended, and another is started")
                await ray.add_machine()

    keeping = asyncio.create_task(keep(), name="keep-machines")
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
