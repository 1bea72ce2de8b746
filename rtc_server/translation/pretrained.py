"""What the transformers package has saved: by a directory, or by the name of a hub repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def from_pretrained(kind: Any, model: str, **options: Any) -> Any:
    """``model`` as ``kind``, a class or a factory of the package. Any: those are not typed. Raises what the package
    raises: OSError, ValueError or KeyError for files that are missing or others, as a rule."""
    path = Path(model).expanduser()
    return kind.from_pretrained(str(path) if path.exists() else model, **options)
