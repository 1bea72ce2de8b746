"""Loads a translator that the transformers package knows: which class here it is for, its configuration says.

Imports torch: for the translator's process alone.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import torch
import transformers
from transformers import AutoConfig

from rtc_server.errors import ModelLoadError
from rtc_server.translation import seamless, voices
from rtc_server.translation.checkpoint_options import (
    LARGE,
    MADLAD,
    SEAMLESS,
    CheckpointOptions,
    models_of,
    name_of,
)
from rtc_server.translation.model import UtteranceModel
from rtc_server.translation.pretrained import from_pretrained
from rtc_server.translation.text_models import TEXT_KINDS, load_text_model
from rtc_server.translation.written import Written

logger = logging.getLogger(__name__)

_HINT: Final = f"Give a checkpoint that transformers has saved, such as {LARGE} or {MADLAD}."


def load(options: CheckpointOptions) -> UtteranceModel:
    """The model of SeamlessM4T, or one or more models of text. Raises ModelLoadError."""
    _quieten(transformers.logging)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    names = models_of(options.model)
    kinds = {name: _kind_of(name) for name in names}
    if list(kinds.values()) == [SEAMLESS]:
        return seamless.load(options)
    for name, kind in kinds.items():
        if kind == SEAMLESS:
            raise ModelLoadError(f"{name_of(name)} translates by itself alone.", "Give it without other models.")
        if kind not in TEXT_KINDS:
            raise ModelLoadError(
                f"{name_of(name)} is a model of the kind {kind}, which does not translate here.", _HINT
            )
    models = [load_text_model(name, options.device) for name in names]
    return Written(options.name, models, voices.find(options.pocket_tts), options.notice)


def _kind_of(model: str) -> str:
    try:
        config = from_pretrained(AutoConfig, model)
    except (OSError, ValueError, KeyError) as error:  # what the package raises for files that are missing or others
        logger.info("%s", error)
        raise ModelLoadError(f"{name_of(model)} cannot be loaded.", _HINT) from error
    return str(config.model_type)


def _quieten(package_logging: Any) -> None:
    """Of the transformers package: it warns of what is harmless, and draws bars."""
    package_logging.set_verbosity_error()
    package_logging.disable_progress_bar()
