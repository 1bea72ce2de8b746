"""Translation by the rules of Apertium, a program of the system's, for the pairs of languages that it has."""

from __future__ import annotations

import re
import shutil
from typing import Final

from rtc_server.translation.languages import tag_of
from rtc_server.translation.programs import ProgramError, run

PROGRAM: Final = "apertium"
_MODE: Final = re.compile(r"([a-z]{2,3})(_\w+)?-([a-z]{2,3})(_\w+)?")


def modes() -> dict[tuple[str, str], str]:
    """What it calls its translations, by pair; of variants (``es-pt_BR``) the plain one if there is one."""
    if shutil.which(PROGRAM) is None:
        return {}
    try:
        listed = run([PROGRAM, "-l"]).decode("utf-8", "replace").split()
    except ProgramError:
        return {}
    found: dict[tuple[str, str], str] = {}
    for mode in sorted(listed, key=lambda mode: ("_" in mode, mode)):
        named = _MODE.fullmatch(mode)
        source, target = (tag_of(named[1]), tag_of(named[3])) if named else (None, None)
        if source and target and source != target:
            found.setdefault((source, target), mode)
    return found


def translate(mode: str, text: str) -> str:
    """Raises ProgramError. Words that it does not know stay as they are."""
    return run([PROGRAM, "-u", "-n", mode], text).decode("utf-8", "replace").strip()
