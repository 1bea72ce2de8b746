"""What ``model`` may be: the name of a service, of the model behind it, or an alias. Pure.

Clients of OpenAI's protocols name a model, often one that is written into them; this server has services.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rtc_server.errors import UnknownService

DEFAULT: Final = "default"
"""In an alias: the service of those who ask for none."""
ALIASES: Final = (
    "gpt-realtime*=default",
    "gpt-live*=default",
    "gpt-4o-realtime*=default",
    "gpt-4o-mini-realtime*=default",
    "gpt-realtime-whisper*=transcribe",
    "gpt-live-transcribe*=transcribe",
    "gpt-realtime-translate*=translate",
)
"""That hold on every server, as far as it has their services."""
_ANY_END: Final = "*"
_ALIAS: Final = re.compile(r"([^=*\s]+\*?)=([A-Za-z0-9_-]+)")


class UnknownModel(UnknownService):
    """A name that is neither a service's nor a model's, nor an alias."""

    def __init__(self, known: tuple[str, ...]) -> None:
        super().__init__(known)
        self.message = f"There is no such model. This server has: {', '.join(known)}."


@dataclass(frozen=True, slots=True)
class Served:
    """One service. ``model``: the name of what is behind it; None while that is loading."""

    service: str
    model: str | None


def parse_alias(alias: str) -> tuple[str, str] | None:
    """The name and the service of NAME=SERVICE; None for what is no alias."""
    match = _ALIAS.fullmatch(alias)
    return None if match is None else (match[1], match[2])


class ModelNames:
    """``aliases``: of the operator, services by name; a name that ends with ``*`` is any that begins so. The exact name
    counts first, then the longest, and of two that are alike the operator's."""

    def __init__(self, aliases: Mapping[str, str]) -> None:
        always = filter(None, map(parse_alias, ALIASES))
        self._targets = {**dict(always), **aliases}

    def service_of(self, name: str, served: Sequence[Served]) -> str:
        """The service that ``name`` means; the first that is served is the default. Raises UnknownModel."""
        for each in served:
            if name in (each.service, each.model):
                return each.service
        target = self._target(name)
        services = [each.service for each in served]
        service = services[0] if target == DEFAULT else target
        if service not in services:
            raise UnknownModel(tuple(names_of(served)))
        return service

    def _target(self, name: str) -> str | None:
        if name in self._targets:
            return self._targets[name]
        prefixes = [alias for alias in self._targets if alias.endswith(_ANY_END) and name.startswith(alias[:-1])]
        return self._targets[max(prefixes, key=len)] if prefixes else None


def names_of(served: Iterable[Served]) -> list[str]:
    """All names but aliases, each once."""
    return list(dict.fromkeys(name for each in served for name in (each.service, each.model) if name is not None))


def describe(name: str, created: int) -> Mapping[str, Any]:
    """A model as ``GET /v1/models`` has it. ``created``: in seconds since 1970."""
    return {"id": name, "object": "model", "created": created, "owned_by": "rtc-server"}
