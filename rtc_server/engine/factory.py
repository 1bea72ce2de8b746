"""Making a model from its name, so that the engine's layer need not import the models' one."""

from __future__ import annotations

import importlib
from typing import Any

from rtc_server.engine.model import StreamingModel


def make_model(factory: str, options: dict[str, Any]) -> StreamingModel:
    """Call ``factory`` (``module:function``) with ``options`` as keywords. Raises ModelLoadError.

    ``factory`` comes from the composition root, never from a request.
    """
    module, _, function = factory.partition(":")
    model: StreamingModel = getattr(importlib.import_module(module), function)(**options)
    return model
