"""Making a model from its name, so that the engine's layer need not import the models' one."""

from __future__ import annotations

import importlib
from typing import Any

from rtc_server.engine.model import StreamingModel
from rtc_server.usage import invocation


def make_model(factory: str, options: dict[str, Any]) -> StreamingModel:
    """Call ``factory`` (``module:function``) with ``options`` as keywords. Raises ModelLoadError, also for a package
    that the model wants and this machine does not have.

    ``factory`` comes from the composition root, never from a request.
    """
    module, _, function = factory.partition(":")
    try:
        model: StreamingModel = getattr(importlib.import_module(module), function)(**options)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package == __name__.partition(".")[0]:
            raise
        raise invocation.lacks(str(options.get("model", module)), package) from error
    return model
