"""An engine that media nodes reach over TCP, in a thread of the test's own process, and such nodes."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator

from lab.engine_process import SECRET
from rtc_server.cluster.announcer import Announcer
from rtc_server.engine.client import EngineClient
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.messages import Drain, Ready, Stop
from rtc_server.engine.model import StreamingModel
from rtc_server.engine.owners import GRACE_S
from rtc_server.engine.remote import RemoteLink
from rtc_server.engine.served import ServedPort, serve_nodes
from rtc_server.metrics import Metrics
from tests.support.fake_models import CountingModel

KEY = ClusterKey.of(SECRET)


class ServedEngine:
    """``load`` makes its model. ``address``: HOST:PORT; port 0 for any. ``pool``: that it is in, by ``name``."""

    def __init__(
        self,
        load: Callable[[], StreamingModel],
        address: str = "127.0.0.1:0",
        grace_s: float = GRACE_S,
        pool: str = "",
        name: str = "",
    ) -> None:
        self._port = ServedPort(address, KEY, self._on_ready)
        self.address = self._port.address
        self._announcer: Announcer | None = None
        if pool:
            self._announcer = Announcer(self._port, KEY, "fake", pool, name)
        self._thread = threading.Thread(target=self._live, args=(load, grace_s))
        self._thread.start()

    def _live(self, load: Callable[[], StreamingModel], grace_s: float) -> None:
        try:
            serve_nodes(load, self._port, grace_s=grace_s)
        finally:
            if self._announcer is not None:
                self._announcer.close()

    def drain(self) -> None:
        self._port.tell(Drain())

    def stop(self) -> None:
        if self._thread.is_alive():
            self._port.tell(Stop())
        self._thread.join()

    def _on_ready(self, ready: Ready) -> None:
        if self._announcer is not None:
            self._announcer.loaded(ready.info)


@contextlib.contextmanager
def served(
    slots: int = 2,
    address: str = "127.0.0.1:0",
    grace_s: float = GRACE_S,
    model: StreamingModel | None = None,
    pool: str = "",
    name: str = "",
) -> Iterator[ServedEngine]:
    load = functools.partial(CountingModel, slots) if model is None else lambda: model
    engine = ServedEngine(load, address, grace_s, pool, name)
    try:
        yield engine
    finally:
        engine.stop()


def node(address: str, key: ClusterKey = KEY, stall_timeout_s: float = 60.0) -> EngineClient:
    """A media node's client of the engine there."""
    return EngineClient("fake", lambda: RemoteLink(address, key), Metrics(), stall_timeout_s, shared=True)
