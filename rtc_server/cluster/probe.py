"""Asks a pool which engines it knows, as a media node that leaves at once: for ``rtc-server check``, and, as
``python -m rtc_server.cluster.probe HOST:PORT KEY-FILE``, for health checks."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass

from rtc_server.cluster.messages import PROTOCOL, Ask, Listed, OtherProtocol, Roster, decode_from_pool, encode
from rtc_server.cluster.policy import Phase
from rtc_server.engine import probe
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.errors import NoEngine


@dataclass(frozen=True, slots=True)
class PoolReport:
    """The engines whose models are loaded."""

    engines: tuple[Listed, ...]

    def ready(self, service: str) -> list[str]:
        """Addresses of those that take conversations."""
        return [each.address for each in self.engines if (each.service, each.phase) == (service, Phase.READY)]

    def __str__(self) -> str:
        counts = Counter(each.service for each in self.engines if each.phase == Phase.READY)
        return ", ".join(f"{count} of {service}" for service, count in sorted(counts.items())) or "none"


def ask(address: str, key: ClusterKey, wait_s: float = probe.WAIT_S) -> PoolReport:
    """Ask the pool at ``HOST:PORT``. Blocks for up to three times ``wait_s``. Raises NoEngine, which says what is
    wrong."""
    with probe.connected(address, key.pool.public, key.node, wait_s, "rtc-server pool --pool-listen") as link:
        roster = probe.answer(link, encode(Ask(PROTOCOL, {})), lambda raw: _roster(address, raw), wait_s)
    if roster is None:
        raise NoEngine(f"The pool at {address} does not answer.", "Its own log may say why.")
    return PoolReport(tuple(roster.engines))


def _roster(address: str, raw: bytes) -> Roster | None:
    message = decode_from_pool(raw)
    if isinstance(message, OtherProtocol):
        raise NoEngine(
            f"The pool at {address} speaks version {message.protocol} of the protocol, this machine {PROTOCOL}.",
            "Install the same release of rtc-server on both.",
        )
    return message


if __name__ == "__main__":
    sys.exit(probe.main(sys.argv[1:], ask))
