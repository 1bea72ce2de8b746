"""A pool's settings as terms for each of its services."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from rtc_server.cluster.policy import Terms
from rtc_server.config import PoolSettings, option
from rtc_server.errors import ConfigError
from rtc_server.usage.spelling import did_you_mean

_MOST: Final = 10_000
_MOST_S: Final = 1e7


def terms_of(settings: PoolSettings, known: Iterable[str]) -> dict[str, Terms]:
    """Of each of the settings' services, which are among ``known``. Raises ConfigError."""
    for service in settings.services:
        if service not in known:
            raise ConfigError(
                f"--services: there is no service {service}.{did_you_mean(service, known)}",
                hint=f"There are: {', '.join(known)}.",
            )
    terms = {}
    for service in settings.services:
        least, most, spare, idle_s = (
            _number(name, getattr(settings, name), service, settings.services)
            for name in ("min", "max", "spare_slots", "idle_s")
        )
        if most < max(1, least):
            raise ConfigError(f"--max of {service} must be at least 1, and not less than --min.")
        terms[service] = Terms(int(least), int(most), int(spare), idle_s)
    return terms


def _number(name: str, entries: tuple[str, ...], service: str, services: tuple[str, ...]) -> float:
    """What ``entries`` say of ``service``: ``N`` of all, ``SERVICE=N`` of one, which goes before."""
    of_all = of_one = None
    for entry in entries:
        named, equals, text = entry.rpartition("=")
        if equals and named not in services:
            raise ConfigError(f"{option(name)} {entry}: {named} is none of --services.{did_you_mean(named, services)}")
        if not equals:
            of_all = _parsed(name, text)
        elif named == service:
            of_one = _parsed(name, text)
    number = of_all if of_one is None else of_one
    if number is None:
        raise ConfigError(f"{option(name)} says nothing of {service}.", hint="Add a number for all, as in N,SERVICE=N.")
    return number


def _parsed(name: str, text: str) -> float:
    try:
        number = float(text) if name == "idle_s" else int(text)
    except ValueError:
        raise ConfigError(f"{option(name)}: {text!r} is not a number.") from None
    if not (math.isfinite(number) and 0 <= number <= (_MOST_S if name == "idle_s" else _MOST)):
        raise ConfigError(f"{option(name)}: {text} is out of bounds.")
    return number
