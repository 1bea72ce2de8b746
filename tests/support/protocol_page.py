"""What ``docs/protocol.md`` says, for tests that hold the code to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]


def documented(section: str, column: int = 0) -> Iterator[str]:
    """The names in backquotes in a column of the table that follows ``section`` in ``docs/protocol.md``."""
    text = (_ROOT / "docs" / "protocol.md").read_text().split(section, 1)[1]
    rows = iter(text.splitlines())
    for row in rows:
        if row.startswith("|"):
            break
    for row in rows:
        if not row.startswith("|"):
            return
        yield from re.findall(r"`([a-z_]+)`", row.split("|")[column + 1])
