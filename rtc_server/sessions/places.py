"""The places that other processes of the same server hold: limits are the server's, whichever process a client is at.

Each process writes what it holds itself into memory that all share, and reads the rest: a client that comes to two of
them in the same microsecond may have one place more than it should. Knows no session; who may come in is
:mod:`rtc_server.sessions.admission`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from rtc_server.access.principals import Visitor
from rtc_server.system.shared_file import SharedFile

_ROW: Final = np.dtype([("address", "<u8"), ("service", "<u4"), ("state", "<u4")])
_FREE: Final = 0
_CONNECTING: Final = 1
_THERE: Final = 2
_AWAITS_SLOT: Final = 3


class Place(Protocol):
    """What holds one. ``connecting``: it does, and its client has not been there yet. ``awaits_slot``: there is
    no model for it yet."""

    @property
    def visitor(self) -> Visitor: ...

    @property
    def service(self) -> str: ...

    @property
    def connecting(self) -> bool: ...

    @property
    def awaits_slot(self) -> bool: ...


class Elsewhere(Protocol):
    """What other processes hold, and their knowledge of what this one does."""

    def enter(self, place: Place) -> None:
        """This process holds one more place."""

    def leave(self, place: Place) -> None:
        """It does not any more."""

    def refresh(self) -> None:
        """Some that were connecting may be there by now."""

    def __len__(self) -> int:
        """Places that others hold."""

    def count_of(self, address: str) -> int:
        """Of clients of this address."""

    def connecting_of(self, address: str) -> list[str]:
        """The services of those of them whose clients have not been there yet."""

    def awaiting(self) -> int:
        """For a model that starts."""

    def awaiting_of(self, address: str) -> int:
        """Those of them of clients of this address."""


class Nowhere:
    """There is one process."""

    def enter(self, place: Place) -> None: ...

    def leave(self, place: Place) -> None: ...

    def refresh(self) -> None: ...

    def __len__(self) -> int:
        return 0

    def count_of(self, address: str) -> int:
        return 0

    def connecting_of(self, address: str) -> list[str]:
        return []

    def awaiting(self) -> int:
        return 0

    def awaiting_of(self, address: str) -> int:
        return 0


def size(workers: int, most: int) -> int:
    """Bytes for so many processes, of which each may hold ``most`` places."""
    return workers * most * _ROW.itemsize


class SharedPlaces:
    """Of process ``worker``. ``file``: of :func:`size` bytes from ``offset``. ``services``: in the order that all
    processes have them in."""

    def __init__(
        self, file: SharedFile, worker: int, workers: int, most: int, services: Iterable[str], offset: int = 0
    ) -> None:
        count = workers * most
        self._rows = np.frombuffer(file.memory, _ROW, count, offset).reshape(workers, most)
        self._worker = worker
        self._own = self._rows[worker]
        self._own[:] = 0  # of an earlier process in this one's place
        self._services = list(services)
        self._held: dict[Place, int] = {}

    def enter(self, place: Place) -> None:
        free = np.flatnonzero(self._own["state"] == _FREE)
        if not len(free):
            return  # admission lets no more in than there are rows
        row = self._held[place] = int(free[0])
        self._own[row] = (_number_of(place.visitor.address), self._services.index(place.service), _state_of(place))

    def leave(self, place: Place) -> None:
        row = self._held.pop(place, None)
        if row is not None:
            self._own[row] = (0, 0, _FREE)

    def refresh(self) -> None:
        for place, row in self._held.items():
            self._own[row]["state"] = _state_of(place)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._others()["state"]))

    def count_of(self, address: str) -> int:
        return len(self._others_of(address))

    def connecting_of(self, address: str) -> list[str]:
        rows = self._others_of(address)
        return [self._services[row["service"]] for row in rows if row["state"] == _CONNECTING]

    def awaiting(self) -> int:
        return int(np.count_nonzero(self._others()["state"] == _AWAITS_SLOT))

    def awaiting_of(self, address: str) -> int:
        return int(np.count_nonzero(self._others_of(address)["state"] == _AWAITS_SLOT))

    def held(self) -> list[int]:
        """By each of the processes, this one included."""
        return [int(np.count_nonzero(rows["state"])) for rows in self._rows]

    def close(self) -> None:
        """Look no more into the shared memory."""
        self._rows = self._own = np.zeros((0, 0), _ROW)

    def _others(self) -> npt.NDArray[np.void]:
        return np.delete(self._rows, self._worker, axis=0).ravel()

    def _others_of(self, address: str) -> npt.NDArray[np.void]:
        others = self._others()
        taken, theirs = others["state"] != _FREE, others["address"] == _number_of(address)
        return np.extract(taken & theirs, others)


def _number_of(address: str) -> int:
    return int.from_bytes(hashlib.blake2s(address.encode(), digest_size=8).digest(), "little")


def _state_of(place: Place) -> int:
    if place.awaits_slot:
        return _AWAITS_SLOT
    return _CONNECTING if place.connecting else _THERE
