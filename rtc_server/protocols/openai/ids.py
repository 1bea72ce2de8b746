"""Identifiers in OpenAI's form: what is named, and a random part that cannot be guessed."""

from __future__ import annotations

import secrets
from typing import Final

_RANDOM_BYTES: Final = 12


def new_id(kind: str) -> str:
    """``kind``: ``event``, ``item``, ``resp`` and the like."""
    return f"{kind}_{secrets.token_hex(_RANDOM_BYTES)}"
