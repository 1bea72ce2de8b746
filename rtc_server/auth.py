"""Who is asking: principals, and the keys and tokens that prove one. Knows nothing of HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who may come in. ``services``: None is all. ``operator``: may look at what concerns everybody."""

    name: str
    services: frozenset[str] | None = None
    max_session_s: float | None = None
    operator: bool = False

    def may_use(self, service: str) -> bool:
        return self.services is None or service in self.services


ANONYMOUS: Final = Principal("", operator=True)
"""Everybody, on a server without ``--auth``."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """One request's principal, and the address that its limits are counted by."""

    principal: Principal
    address: str
