"""Files that hold secrets."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

logger = logging.getLogger(__name__)


def warn_if_readable_by_all(path: Path) -> None:
    """Say so in the log where other users of the machine can read ``path``. Raises OSError."""
    if path.stat().st_mode & stat.S_IROTH:
        logger.warning("%s can be read by everybody on this machine", path)
