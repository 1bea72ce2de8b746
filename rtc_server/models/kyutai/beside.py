"""What models of another package take of a device that they share with this one: their weights, by the headers of
their files.

Knows the form in which the transformers package saves and finds them, and loads none.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi, snapshot_download

logger = logging.getLogger(__name__)

_BYTES: Final = 2
"""Of a weight on a GPU: half precision, whatever its file has."""
_WHOLE: Final = "model.safetensors"
_PARTS: Final = "model-*-of-*.safetensors"
_HUB_S: Final = 10.0
_MOST_HEADER_BYTES: Final = 100 * 2**20
"""As the safetensors package has it."""


def weights_bytes(model: str) -> int | None:
    """Of ``model``, a directory or a hub repository, in half precision; None where that cannot be known: it is neither,
    or has no weights in safetensors. What has not been downloaded yet is asked of the hub."""
    directory = Path(model).expanduser()
    try:
        if not directory.is_dir():
            directory = Path(snapshot_download(model, local_files_only=True))
        found = _weights_in(directory)
    except (OSError, ValueError, KeyError, TypeError):
        found = 0
    weights = found or _weights_on_the_hub(model)
    return weights * _BYTES if weights else None


def _weights_in(directory: Path) -> int:
    whole = directory / _WHOLE
    return sum(map(_weights_of, [whole] if whole.exists() else sorted(directory.glob(_PARTS))))


def _weights_of(path: Path) -> int:
    """Raises OSError, ValueError, KeyError, TypeError for a file that is none."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > _MOST_HEADER_BYTES:
            raise ValueError("no header is so long")
        header = json.loads(file.read(size))
    if not isinstance(header, dict):
        raise ValueError("the header names no weights")
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _weights_on_the_hub(model: str) -> int:
    if model.count("/") != 1 or Path(model).expanduser().exists():
        return 0
    try:
        told = HfApi().model_info(model, timeout=_HUB_S).safetensors
    except Exception as error:  # of the hub's client, and of whatever client it has itself: loading says it better
        logger.info("what %s takes is not known: %s", model, error)
        return 0
    return 0 if told is None else told.total
