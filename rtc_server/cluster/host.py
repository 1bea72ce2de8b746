"""What runs an engine on a machine of the cluster: a child process that is the engine, and another when it has ended.

Runs where a framework places it, in a process that ends when it is told: the engine ends with that. Knows no framework.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zmq

from rtc_server.cluster.messages import PROTOCOL, Beat, Gone, ToPool, encode
from rtc_server.cluster.policy import Phase
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.sockets import PARTING_MS, prepare_dealer

logger = logging.getLogger(__name__)

_PAUSES_S: Final = (0.2, 1.0, 5.0, 20.0, 60.0)
"""Between engines, of which each ended soon."""
_SOON_S: Final = 60.0
_LIFE_BYTES: Final = 4
_SAY_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class HostSpec:
    """``command``: an engine's of ``service``, without its name; each process of it has one of its own. ``pool``: its
    address. ``key_file``: of the cluster, on the machine where it runs."""

    service: str
    command: tuple[str, ...]
    pool: str
    key_file: str


class EngineHost:
    """Of the engine that its pool calls ``name``. Starts at once."""

    def __init__(self, name: str, spec: HostSpec) -> None:
        self._name = name
        self._spec = spec
        self._key = ClusterKey.read(Path(spec.key_file))
        self._draining = False
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        # The engine ends with the thread that started it, not only with the process.
        self._thread = threading.Thread(target=self._run, name="engine-host", daemon=True)
        self._thread.start()

    def pid(self) -> int | None:
        """The engine's process, if there is one at the moment."""
        return None if self._child is None else self._child.pid

    def drain(self) -> None:
        """Have the engine drain, and start no other. Blocks until it has ended."""
        with self._lock:
            self._draining = True
            if self._child is not None:
                self._child.send_signal(signal.SIGTERM)
        self._thread.join()

    def _run(self) -> None:
        ended_soon = 0
        while not self._draining:
            began = time.monotonic()
            life = f"{self._name}/{secrets.token_hex(_LIFE_BYTES)}"
            # Where this process is another one's replacement, the engine of that one is known to be gone by now.
            self._say(Beat(PROTOCOL, self._name, life, self._spec.service, "", Phase.STARTING))
            status = self._run_one(life)
            if status is None or self._draining:
                return
            logger.error("the engine %s ended with status %d: another one is started", self._name, status)
            self._say(Gone(life))
            ended_soon = ended_soon + 1 if time.monotonic() - began < _SOON_S else 0
            time.sleep(_PAUSES_S[min(ended_soon, len(_PAUSES_S) - 1)])

    def _run_one(self, life: str) -> int | None:
        """One process of the engine; its exit status."""
        with self._lock:
            if self._draining:
                return None
            command = [sys.executable, "-m", *self._spec.command, "--engine-name", life]
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - a program of ours
        status = self._child.wait()
        self._child = None
        return status

    def _say(self, message: ToPool) -> None:
        """Tell the pool something. One that cannot be reached within a second is not told."""
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            prepare_dealer(socket, self._key.pool.public, self._key.engine)
            socket.linger = PARTING_MS
            socket.sndtimeo = _SAY_MS
            socket.connect(f"tcp://{self._spec.pool}")
            with contextlib.suppress(zmq.Again):
                socket.send(encode(message))
