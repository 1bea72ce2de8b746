"""Says what to type on this machine: commands of this program, and how to install what it lacks.

In its checkout that is ``make``, elsewhere the program itself; a hint that is pasted has to work where it is read.
"""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

from rtc_server.bundled import PACKAGE
from rtc_server.errors import ModelLoadError

PROGRAM: Final = "rtc-server"
MOSHI: Final = "moshi==0.2.13"
"""What ``make setup`` and the image install without its pins, which would hold back torch, aiohttp and numpy."""
_UNDER_MAKE: Final = ("serve", "turn")


def command(*arguments: str) -> str:
    """The command line of ``rtc-server ARGUMENTS``."""
    if arguments[:1] and arguments[0] in _UNDER_MAKE and in_checkout():
        rest = shlex.join(arguments[1:])
        return f"make {arguments[0]}" + (f' ARGS="{rest}"' if rest else "")
    return shlex.join([*_program(), *arguments])


def shown(hint: str) -> str:
    """A hint of others, as of a model's ``about.json``: where it is a command of this program, as it is called here."""
    try:
        words = shlex.split(hint)
    except ValueError:
        return hint
    return command(*words[1:]) if words[:1] == [PROGRAM] else hint


def in_checkout() -> bool:
    """Whether the working directory is the checkout that this package lies in, with its Makefile."""
    root = PACKAGE.parent
    try:
        return Path.cwd() == root and (root / "Makefile").is_file()
    except OSError:  # the working directory is gone
        return False


def lacks(model: str, package: str) -> ModelLoadError:
    """The error for a model that wants a package which is not installed."""
    return ModelLoadError(
        f"The model {model} wants the package {package}, which is not installed.", how_to_install(package)
    )


def how_to_install(package: str) -> str:
    """A sentence: how to install a package that this program wants, by the name that it has in an import or in an
    index."""
    if in_checkout():
        return "make setup installs everything."
    pip = shlex.join([sys.executable, "-m", "pip", "install"])
    if package == MOSHI.partition("=")[0]:
        return f"Without its own pins, which would hold back torch, aiohttp and numpy: {pip} --no-deps {MOSHI}"
    return f"{pip} {shlex.quote(_requirement(package))}"


def how_to_set_up() -> str:
    """A sentence for a program that runs from its sources, without its packages."""
    root = PACKAGE.parent
    if in_checkout():
        return "make serve sets everything up, and starts; after that, .venv/bin/rtc-server is the program."
    if (root / "pyproject.toml").is_file():
        return f"{shlex.join([sys.executable, '-m', 'pip', 'install', str(root)])} installs what it wants."
    return "Install the package again."


def install_anew(model: str) -> str:
    """A sentence: how to get a bundled model whose files are missing."""
    return f"Install the package again{f', or train {model} (make train)' if in_checkout() else ''}."


def _requirement(package: str) -> str:
    """This program's own requirement of it, with its bounds, or that of one of its extras."""
    name = package.replace("_", "-").lower()
    try:
        wanted = importlib.metadata.requires(PROGRAM) or []
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        wanted = []
    plain = (each.partition(";")[0].strip() for each in sorted(wanted, key=lambda each: "extra ==" in each))
    return next((each for each in plain if re.split(r"[^A-Za-z0-9._-]", each)[0].lower() == name), name)


def _program() -> list[str]:
    found = shutil.which(PROGRAM)
    own = Path(sys.executable).parent / PROGRAM
    if found is not None and Path(found).resolve() == own.resolve():
        return [PROGRAM]
    return [str(own)] if own.is_file() else [sys.executable, "-m", "rtc_server"]
