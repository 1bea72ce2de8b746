"""Finds unknown environment variables that were meant for this server. Pure.

A misspelt variable must not start a server without what it says: without ``RTC_SERVER_AUTH`` it would be an open one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from rtc_server.errors import ConfigError
from rtc_server.usage.spelling import edits, nearest

PREFIX: Final = "RTC_SERVER_"
_STEM: Final = "RTC_SERVER"
_FEW_EDITS: Final = 2
_SHOWN: Final = 5
_LONGEST: Final = 80
# Kubernetes and Docker set such variables for each service and link: of one that is called rtc-server,
# RTC_SERVER_SERVICE_HOST, RTC_SERVER_PORT_8080_TCP_ADDR, RTC_SERVER_PORT=tcp://10.0.0.7:8080.
_SERVICE_LINK: Final = re.compile(
    rf"{_STEM}(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_LINK: Final = re.compile(r"(tcp|udp|sctp)://\S+")
LINK_HINT: Final = (
    "The container platform sets it, for a service of this name. In Kubernetes, enableServiceLinks: false in the pod's "
    "spec leaves it out."
)


def refuse_unknown(environment: Mapping[str, str], known: Iterable[str]) -> None:
    """Raise ConfigError for variables of ours that are not ``known`` (whole names, with the prefix). What they are set
    to is not shown: it may be a secret."""
    names = frozenset(known)
    wrong = [name for name, value in environment.items() if name not in names and _is_ours(name, value)]
    if wrong:
        raise ConfigError(_unknown(wrong), hint=_hint(wrong, names))


def is_service_link(value: str) -> bool:
    """Whether a variable is set to the address of a service, as container platforms do it."""
    return _LINK.fullmatch(value) is not None


def _is_ours(name: str, value: str) -> bool:
    plain = _plain(name)
    joined, stem = plain.replace("_", ""), _STEM.replace("_", "")
    if joined == stem:
        return False  # it names nothing that could have been meant
    if joined.startswith(stem):
        linked = _SERVICE_LINK.fullmatch(name) or (name.endswith("_PORT") and is_service_link(value))
        return not linked
    # RTC_SEVER_AUTH and RCT_SERVER_AUTH are ours, RTP_SERVER_PORT and RTC_SERVICE_URL are others'.
    return sorted(plain[:3]) == sorted(PREFIX[:3]) and edits(_prefix(plain), PREFIX) <= _FEW_EDITS


def _plain(name: str) -> str:
    return re.sub(r"[^A-Z0-9]+", "_", name.upper())


def _prefix(plain: str) -> str:
    """The beginning that is most like ours."""
    lengths = range(len(PREFIX) - _FEW_EDITS, len(PREFIX) + _FEW_EDITS + 1)
    return min((plain[:length] for length in lengths), key=lambda beginning: edits(beginning, PREFIX))


def _unknown(names: list[str]) -> str:
    shown = [repr(name[:_LONGEST]) if not name.isprintable() or " " in name else name[:_LONGEST] for name in names]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    what = "is no setting" if len(names) == 1 else "are no settings"
    return f"{', '.join(shown[:_SHOWN])}{more} in the environment {what} of this server."


def _hint(names: list[str], known: Iterable[str]) -> str:
    options = {name.removeprefix(PREFIX): name for name in known}
    plain = [_plain(name) for name in names[:_SHOWN]]
    meant = [nearest(name.removeprefix(_prefix(name)), options) for name in plain]
    found = list(dict.fromkeys(options[option] for option in meant if option is not None))
    if not found:
        return "rtc-server serve --help lists the settings; unset what is not one."
    return f"Did you mean {', '.join(found)}?"
