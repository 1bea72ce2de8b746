"""``python -m bench NAME``: run one benchmark and print its table. Tables to stdout, progress to stderr.

Imports the one that is named alone: a machine that is only lent may lack what others want.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys

_NAMES = (
    *(
        "calls",
        "captions",
        "doors",
        "loss",
        "pool",
        "matrix",
        "engine",
        "killed",
        "moved",
        "passed",
        "extent",
        "flame",
        "launches",
        "listeners",
        "floor",
        "full",
        "gpu",
        "host",
        "kernel",
        "browser",
        "quality",
        "relay",
        "resume",
        "rooms",
        "scale",
        "transcribe",
    ),
    "words",
)


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    for name in [name for name in _NAMES if name in sys.argv[1:2]] or _NAMES:
        module = importlib.import_module(f"bench.{name}")
        command = commands.add_parser(name, help=module.HELP, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
