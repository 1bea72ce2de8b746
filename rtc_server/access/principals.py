"""Principals: what an authenticated client may do. Pure; knows neither keys nor HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Principal:
    """A client that may come in. ``services``: None is all. ``operator``: may look at what concerns all sessions.

    ``name`` tells one from the other and is unique: ``key/NAME``, ``sub/SUBJECT``, ``token/HASH`` where there is no
    subject. It is not for logs. ``expires_at``: when the token is good no longer, in seconds since 1970, the leeway
    included; a key is good until it is taken out of its file. ``ephemeral``: it came with a key that this server has
    made for a short time, for the client with that name. ``language``: into which such a key has translated, where its
    client says nothing else.
    """

    name: str
    services: frozenset[str] | None = None
    max_session_s: float | None = None
    operator: bool = False
    expires_at: float | None = field(default=None, compare=False)
    ephemeral: bool = field(default=False, compare=False)
    language: str | None = field(default=None, compare=False)

    def may_use(self, service: str) -> bool:
        return self.services is None or service in self.services

    def session_s(self, most_s: float) -> float:
        """For how long a session may last on a server where none lasts longer than ``most_s``."""
        return most_s if self.max_session_s is None else min(most_s, self.max_session_s)

    @property
    def lasts_until(self) -> float | None:
        """When a socket or a stream of events ends at the latest, as ``expires_at``: it is one request, and lasts no
        longer than its token. A key for a short time (``ephemeral``) opens one, and it goes on, as OpenAI's clients
        expect."""
        return None if self.ephemeral else self.expires_at

    def of_a_socket(self, now: float) -> Principal:
        """The same, for what ends as ``lasts_until`` says. ``now``: in seconds since 1970."""
        if self.lasts_until is None:
            return self
        return replace(self, max_session_s=self.session_s(max(0.0, self.lasts_until - now)))


ANONYMOUS: Final = Principal("", operator=True)
"""Every client, on a server without ``--auth``."""

NOBODY: Final = Principal("nobody", services=frozenset())
"""A visitor who has not said who they are, at a door that is open all the same, on a server with ``--auth``."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """One request's principal, and the address that its limits are counted by."""

    principal: Principal
    address: str
