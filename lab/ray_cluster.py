"""A Ray cluster of this machine alone: a head, and nodes with a pretended GPU each, all in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import psutil

from lab.program import Program, without_settings

ENVIRONMENT: Final[Mapping[str, str]] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_DEDUP_LOGS": "0",
    "RAY_worker_niceness": "0",
    "RAY_memory_monitor_refresh_ms": "0",
}
"""Of all that use the cluster, which are started by one program: the token is that one's."""
_TRIES: Final = 3
_KNOWN_S: Final = 240.0
_LOOK_S: Final = 0.2


def environment() -> dict[str, str]:
    return without_settings({**os.environ, **ENVIRONMENT})


class RayCluster(Program):
    """``address``: of its head, once it is ready."""

    address = ""

    async def wait_ready(self, timeout_s: float = 480.0) -> None:
        self.address = (await self.wait_said(r"ready at (\S+)", timeout_s))[1]

    def head(self) -> list[psutil.Process]:
        """The processes whose end is that of the head: those of a machine that has lost its power."""
        return [each for each in self._alive() if each.name() == "gcs_server" or "--head" in each.cmdline()]

    def _alive(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [each for each in children if each.status() != psutil.STATUS_ZOMBIE]

    def kill_head(self) -> None:
        for process in self.head():
            process.kill()

    def machines(self) -> list[psutil.Process]:
        """Of each node with a GPU the process that is Ray's there."""
        return [each for each in self._alive() if each.name() == "raylet" and "--head" not in each.cmdline()]

    async def add_machine(self) -> None:
        """One more node with a GPU."""
        await self._do("add", "added")

    async def clear(self) -> None:
        """End what runs on it."""
        await self._do("clear", "cleared")

    async def _do(self, command: str, done: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())
        await self.process.stdin.drain()
        await self.wait_said(done, 60)


@contextlib.asynccontextmanager
async def ray_cluster(nodes: int) -> AsyncIterator[RayCluster]:
    """Ready; at the end nothing of it is left."""
    async with contextlib.AsyncExitStack() as stack:
        yield await _started(nodes, stack)


async def _started(nodes: int, stack: contextlib.AsyncExitStack) -> RayCluster:
    """What Ray waits for it waits for so long and no longer, which on a busy machine may not do: then once more."""
    for _ in range(_TRIES - 1):
        async with contextlib.AsyncExitStack() as attempt:
            cluster = await attempt.enter_async_context(_cluster_process(nodes))
            with contextlib.suppress(AssertionError):
                await cluster.wait_ready()
                stack.push_async_exit(attempt.pop_all())
                return cluster
    cluster = await stack.enter_async_context(_cluster_process(nodes))
    await cluster.wait_ready()
    return cluster


@contextlib.asynccontextmanager
async def _cluster_process(nodes: int) -> AsyncIterator[RayCluster]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lab.ray_cluster", str(nodes)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    cluster = RayCluster(process)
    try:
        yield cluster
    finally:
        assert process.stdin is not None
        process.stdin.close()  # it shuts the nodes down
        try:
            await cluster.wait_exit(60)
        finally:
            await cluster.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what outlives, for half a minute, a machine that was killed


def _wait_longer() -> None:
    """Ray gives a node 30 s to be known to its head, which on a busy machine may not do, and has no setting for it."""
    services: Any = importlib.import_module("ray._private.services")
    get_node = services.get_node

    def patient(*arguments: Any) -> Any:
        deadline = time.monotonic() + _KNOWN_S
        while True:
            try:
                return get_node(*arguments)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOOK_S)

    services.get_node = patient


def _run(count: int) -> None:
    ray: Any = importlib.import_module("ray")
    _wait_longer()
    small = {"object_store_memory": 80_000_000}
    head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, **small}
    cluster = importlib.import_module("ray.cluster_utils").Cluster(initialize_head=True, head_node_args=head)
    node = {"num_cpus": 4, "num_gpus": 1, **small}
    for _ in range(count):
        cluster.add_node(**node)
    print(f"ready at {cluster.address}", flush=True)  # noqa: T201 - read by the one that started it
    for command in sys.stdin:
        if command.strip() == "clear":
            _clear(ray, cluster.address)
            print("cleared", flush=True)  # noqa: T201
        elif command.strip() == "add":
            cluster.add_node(**node)
            print("added", flush=True)  # noqa: T201
    cluster.shutdown()


def _clear(ray: Any, address: str) -> None:
    ray.init(address, log_to_driver=False)
    for each in ray.util.list_named_actors(all_namespaces=True):
        ray.kill(ray.get_actor(each["name"], each["namespace"]), no_restart=True)
    ray.shutdown()


if __name__ == "__main__":
    _run(int(sys.argv[1]))
