"""Engines on the machines of a Ray cluster: each is a detached actor that runs one as its child process.

All that knows Ray. It places engines, gives each its GPUs, restarts what runs them, and asks for machines while one
waits for its own; what is said to an engine never goes through it. Calls to Ray may take long: a thread makes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import logging
import math
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from rtc_server.cluster.host import EngineHost, HostSpec
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.errors import ConfigError

logger = logging.getLogger(__name__)

_LOOK_S: Final = 1.0
"""How often to look which actors there are."""
_RETRY_S: Final = 5.0
"""An engine that could not be started counts as one that starts for so long: it is not tried again at once."""
_NAME_BYTES: Final = 4
_CALLS: Final = 4
"""At a time, of an actor: one waits for its engine to drain."""
LOCAL: Final = "local"
"""In place of an address: a Ray of this machine alone, which ends with the pool."""
_ENVIRONMENT: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
"""Of a Ray that is started here. By itself it has what it runs give way to everything else (15 of nice): an engine is
to be in time."""
_LOCAL_OPTIONS: Final = {"include_dashboard": False, "object_store_memory": 80_000_000}
"""Nothing is stored there."""


@dataclass(frozen=True, slots=True)
class Placement:
    """What is to run for an engine of a service, and what it needs of its machine."""

    host: HostSpec
    gpus: float
    cpus: float = 1.0


class RayLauncher:
    """A :class:`rtc_server.cluster.pool.Launcher` on the cluster at ``address``. Engines are those of the cluster whose
    key this is: several may share a Ray. To be made in the main thread, before signal handlers are set, for Ray sets
    its own. Raises ConfigError where there is no Ray."""

    def __init__(self, address: str, key: ClusterKey) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConfigError(
                "--ray-address wants the package ray.",
                hint="It comes with the extra: pip install 'rtc-server[cluster]'.",
            )
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        ray: Any = importlib.import_module("ray")  # takes a second, and is not on every machine
        self._ray = ray
        namespace = f"rtc-server-{hashlib.sha256(key.pool.public).hexdigest()[:16]}"
        try:
            ray.init(
                None if address == LOCAL else address,
                namespace=namespace,
                **(_LOCAL_OPTIONS if address == LOCAL else {}),
            )
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ConfigError(f"The Ray cluster at {address} cannot be used: {error}") from error
        self._address = ray.util.get_node_ip_address()
        self._placements: Callable[[str], Placement] | None = None
        self._lock = threading.Lock()
        self._there: dict[str, str] = {}
        """Names of engines, and their services."""
        self._starting: dict[str, float] = {}
        """Until when engines that Ray does not know are there all the same: their start waits, or has failed."""
        self._drains: dict[str, Any] = {}
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._look()
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)

    @property
    def address(self) -> str:
        """This machine's, by which the others of the Ray cluster reach it."""
        return str(self._address)

    def begin(self, placements: Callable[[str], Placement]) -> None:
        """``placements``: of an engine of each service."""
        self._placements = placements
        self._thread.start()

    def names(self, service: str) -> Collection[str]:
        with self._lock:
            return [name for name, of in self._there.items() if of == service]

    def start(self, service: str) -> str:
        name = f"{service}-{secrets.token_hex(_NAME_BYTES)}"
        with self._lock:
            self._there[name] = service
            self._starting[name] = math.inf
        self._work.put(lambda: self._create(service, name))
        return name

    def stop(self, name: str) -> None:
        self._work.put(lambda: self._drain(name))

    def discard(self, name: str) -> None:
        with self._lock:
            self._there.pop(name, None)
            self._starting.pop(name, None)
        self._work.put(lambda: self._kill(name))

    def close(self) -> None:
        """Leave Ray: engines go on, but for those of a local one."""
        self._work.put(None)
        self._thread.join()
        self._ray.shutdown()

    def _run(self) -> None:
        look_at = time.monotonic() + _LOOK_S
        while True:
            try:
                work = self._work.get(timeout=max(0.0, look_at - time.monotonic()))
            except queue.Empty:
                look_at = time.monotonic() + _LOOK_S
                work = self._look
            if work is None:
                return
            try:
                work()
            except Exception:  # the border of a thread: Ray raises what it likes, and may come back
                logger.exception("Ray did not do what it was asked")

    def _create(self, service: str, name: str) -> None:
        assert self._placements is not None, "begun"
        placement = self._placements(service)
        actor = self._ray.remote(EngineHost).options(
            name=name,
            lifetime="detached",
            num_gpus=placement.gpus,
            num_cpus=placement.cpus,
            max_restarts=-1,
            max_concurrency=_CALLS,
        )
        try:
            actor.remote(name, placement.host)
        finally:
            with self._lock:
                self._starting[name] = time.monotonic() + _RETRY_S

    def _drain(self, name: str) -> None:
        if name not in self._drains:
            self._drains[name] = self._ray.get_actor(name).drain.remote()

    def _kill(self, name: str) -> None:
        with contextlib.suppress(ValueError):  # there is none of this name
            self._ray.kill(self._ray.get_actor(name), no_restart=True)

    def _look(self) -> None:
        """See which engines there are, and end the actors of those that have drained."""
        for name, drain in list(self._drains.items()):
            ended, _ = self._ray.wait([drain], timeout=0)
            if ended:
                self._kill(name)
                del self._drains[name]
        listed = {name: name.rpartition("-")[0] for name in self._ray.util.list_named_actors()}
        now = time.monotonic()
        with self._lock:
            self._starting = {name: until for name, until in self._starting.items() if until > now}
            for name in set(self._there) - set(listed) - set(self._starting):
                logger.info("the engine %s is not there any more", name)
            self._there = {name: of for name, of in self._there.items() if name in self._starting} | listed
