"""``rtc-server serve --workers N``: starts the media processes of a server and the engines that they share, keeps them
alive, and ends them in order.

Owns the port, of which each process has a copy, and the directory in which they find each other. Moves no media and
answers no request.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import logging
import math
import secrets
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from rtc_server.app import Server, on_signals
from rtc_server.cli import media_process
from rtc_server.config import Settings
from rtc_server.engine import shared
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.owners import GRACE_S
from rtc_server.engine.process import ChildSpec
from rtc_server.engine.shared import SharedEngine
from rtc_server.errors import ConfigError, StartupError
from rtc_server.services import ECHO, SIMULTANEOUS, child_spec, plan_all
from rtc_server.system import descriptors, hardware
from rtc_server.system.child_process import ChildProcess
from rtc_server.web.listening import check, listen
from rtc_server.webrtc.ice import parse_ports
from rtc_server.worker import create_shared, free_places

logger = logging.getLogger(__name__)

_PAUSES_S: Final = (0.1, 1.0, 2.0, 5.0, 10.0)
_LIVED_S: Final = 30.0
"""A process that has lived for so long is started again at once."""
_CLOSE_S: Final = 10.0
"""For a process to end when its conversations have, before it is ended by force."""
_SECRET_BYTES: Final = 48
_LANES_GRACE_S: Final = 5.0
"""Longer than a process of a busy machine is held up. A speaker who had no row is tried again as often."""


def count_of(settings: Settings) -> int:
    """How many media processes a server is to have."""
    return hardware.cpu_cores() if settings.workers == "auto" else int(settings.workers)


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; a second signal cuts the drain short, SIGHUP has certificate and keys read again.
    Raises ConfigError, ModelLoadError."""
    await check(settings.host)
    descriptors.raise_limit()
    count = count_of(settings)
    parts = _ports_of(settings, count)
    Server(settings)  # raises what is wrong with the settings, or missing of the models, once and here
    bound = await listen(settings.host, settings.port)
    directory = Path(tempfile.mkdtemp(prefix="rtc-server-"))
    try:
        key_file, secret = _key(settings, directory)
        create_shared(directory, count, settings)
        made = {name: SharedEngine(spec, secret, _grace_s(name)) for name, spec in _engines(settings).items()}
        await _ProcessGroup(settings, bound, directory, key_file, parts, made).run()
    except* StartupError as group:
        error = group.exceptions[0]
        assert isinstance(error, StartupError)
        raise StartupError(error.message, error.hint) from None
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        for each in bound:
            each.close()


def _ports_of(settings: Settings, count: int) -> list[str]:
    """The UDP ports of each media process. Raises ConfigError for fewer ports than processes."""
    ports = parse_ports(settings.udp_ports)
    if ports is None:
        return [""] * count
    if len(ports) < count:
        raise ConfigError(f"--udp-ports {settings.udp_ports} are fewer than the {count} media processes of --workers.")
    edges = [ports.start + len(ports) * index // count for index in range(count + 1)]
    return [f"{low}-{high - 1}" for low, high in pairwise(edges)]


def settings_of_media_process(
    settings: Settings, engines: Mapping[str, str], key_file: Path, udp_ports: Sequence[str], index: int
) -> Settings:
    """The ``settings`` of a server for one of its media processes, by its ``index`` among the ``udp_ports`` of all.
    ``engines``: where those that all share listen, by service; what a process runs for itself alone, a translator of
    utterances, has the server's device."""
    return dataclasses.replace(
        settings,
        engine_at=(*settings.engine_at, *(f"{service}={address}" for service, address in engines.items())),
        cluster_key=str(key_file),
        udp_ports=udp_ports[index],
        echo_slots=math.ceil(settings.echo_slots / len(udp_ports)),
    )


def _key(settings: Settings, directory: Path) -> tuple[Path, bytes]:
    """The secret of the engines, and the file that holds it: the cluster's, or one of this run. Raises ConfigError."""
    if settings.cluster_key:
        path = Path(settings.cluster_key)
        ClusterKey.read(path)  # raises what is wrong with it
        return path.absolute(), path.read_bytes().strip()
    path, secret = directory / "key", base64.b64encode(secrets.token_bytes(_SECRET_BYTES))
    path.touch(0o600)
    path.write_bytes(secret)
    return path, secret


def _engines(settings: Settings) -> dict[str, ChildSpec]:
    """The engines that all media processes use, by service; an echo needs none. Their models are known to be there."""
    specs = [spec for spec in plan_all(settings, hardware.cuda_devices()) if spec.service != ECHO]
    return {spec.service: child_spec(spec, settings) for spec in specs}


def _grace_s(service: str) -> float:
    """For which an engine keeps the slots of a media process that has fallen silent. Speakers do not come back to a row
    of theirs, and others wait for it."""
    return _LANES_GRACE_S if service == SIMULTANEOUS else GRACE_S


@dataclass(slots=True)
class _ProcessGroup:
    """The processes of one server. ``parts``: the UDP ports of each media process."""

    settings: Settings
    bound: list[socket.socket]
    directory: Path
    key_file: Path
    parts: list[str]
    engines: dict[str, SharedEngine]
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    workers: dict[int, ChildProcess] = field(default_factory=dict)
    stopping: bool = False
    announced: bool = False

    async def run(self) -> None:
        stop, hurry = asyncio.Event(), asyncio.Event()
        on_signals(stop, hurry, lambda: self._tell(media_process.RELOAD))
        async with asyncio.TaskGroup() as group:
            # Where an engine listens is known before the first media process starts; its model may take its time.
            first = {name: await engine.start() for name, engine in self.engines.items()}
            keepers = [group.create_task(self._keep_engine(name, process)) for name, process in first.items()]
            media = [group.create_task(self._keep_worker(index)) for index in range(len(self.parts))]
            group.create_task(self._end_in_order(stop, hurry, media, keepers))

    async def _end_in_order(
        self,
        stop: asyncio.Event,
        hurry: asyncio.Event,
        media: list[asyncio.Task[None]],
        keepers: list[asyncio.Task[None]],
    ) -> None:
        """Media processes first: engines go on while conversations are let end."""
        try:
            await stop.wait()
        finally:
            self.stopping = True
        logger.info("stopping")
        self._tell(media_process.STOP)
        hurried = asyncio.create_task(hurry.wait(), name="hurry")
        ended = asyncio.ensure_future(asyncio.wait(media))
        await asyncio.wait([hurried, ended], return_when=asyncio.FIRST_COMPLETED)
        self._tell(media_process.HURRY)
        hurried.cancel()
        await ended
        await asyncio.gather(*(engine.close() for engine in self.engines.values()))
        await asyncio.wait(keepers) if keepers else None

    def _tell(self, word: bytes) -> None:
        for process in self.workers.values():
            process.tell(word)

    async def _keep_worker(self, index: int) -> None:
        async def start() -> ChildProcess:
            process = self.workers[index] = self._start_worker(index)
            return process

        try:
            places_freed = partial(free_places, self.directory, index, len(self.parts), self.settings)
            await self._keep(f"worker {index}", await start(), start, media_process.CANNOT_START, places_freed)
        finally:
            if (process := self.workers.pop(index, None)) is not None:
                await process.end(self.settings.drain_s + _CLOSE_S)

    async def _keep_engine(self, name: str, process: ChildProcess) -> None:
        engine = self.engines[name]
        try:
            await self._keep(f"engine {name}", process, engine.start, shared.CANNOT_BE_LOADED)
        finally:
            await engine.close()

    async def _keep(
        self,
        name: str,
        process: ChildProcess | None,
        start: Callable[[], Awaitable[ChildProcess]],
        hopeless: int,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """Start a process again whenever it has ended, until the server stops. Raises StartupError for one that never
        began and has no hope (its exit status says so, and its log why); one that takes another's place may have some:
        a file that cannot be read now may be mended."""
        first, failures, loop = True, 0, asyncio.get_running_loop()
        while True:
            began = loop.time()
            status = -1 if process is None else await process.wait()
            ended()
            if self.stopping:
                return
            if first and status == hopeless:
                raise StartupError(f"There is no server without {name}.")
            first = False
            failures = 0 if loop.time() - began > _LIVED_S else failures + 1
            logger.error("%s ended with status %d: starting it again", name, status)
            await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S)) - 1] if failures else 0)
            if self.stopping:
                return
            try:
                process = await start()
            except OSError as error:  # no memory or descriptor just now does not mean for ever
                logger.error("%s cannot be started: %s", name, error.strerror)
                process = None

    def _start_worker(self, index: int) -> ChildProcess:
        listeners = tuple(each.fileno() for each in self.bound)
        at = {name: engine.address for name, engine in self.engines.items()}
        own = settings_of_media_process(self.settings, at, self.key_file, self.parts, index)
        announces = index == 0 and not self.announced
        self.announced = self.announced or announces
        process = ChildProcess("rtc_server.cli.media_process", pass_fds=listeners)
        line = media_process.FirstLine(own, index, len(self.parts), str(self.directory), self.key, listeners, announces)
        process.tell(msgspec.json.encode(line) + b"\n")
        return process
