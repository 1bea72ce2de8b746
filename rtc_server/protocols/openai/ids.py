"""Identifiers in OpenAI's form: what is named, and a random part that cannot be guessed."""

from __future__ import annotations

import secrets
from typing import Final

from rtc_server.errors import UnknownSession

_RANDOM_BYTES: Final = 12


def new_id(kind: str) -> str:
    """``kind``: ``event``, ``item``, ``resp`` and the like."""
    return f"{kind}_{secrets.token_hex(_RANDOM_BYTES)}"


def without_prefix(name: str, prefix: str) -> str:
    """The id of the session that a client knows by ``prefix`` and that id. Raises UnknownSession for any other name."""
    if not name.startswith(prefix):
        raise UnknownSession
    return name.removeprefix(prefix)
