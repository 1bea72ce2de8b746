"""Finds the files of a Kyutai checkpoint, on the hub or in a directory, and opens them.

Owns the names of those files and what to tell the person at the terminal when one is missing or odd. Knows
no engine, no slots and no streaming.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from huggingface_hub import try_to_load_from_cache
from moshi.models import loaders

from rtc_server import bundled
from rtc_server.errors import ModelLoadError
from rtc_server.usage import invocation

logger = logging.getLogger(__name__)

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_CONTENTS_HINT: Final = (
    "A checkpoint directory holds config.json, the weights of the language model and of Mimi as .safetensors, "
    "and the SentencePiece tokenizer, under the names that config.json gives."
)
_MODEL_HINT: Final = (
    "Give pico, a hub repository such as kyutai/moshiko-pytorch-bf16, or a directory that holds a checkpoint."
)
_MOSHI_7B: Final[dict[str, dict[str, Any]]] = {
    f"kyutai/{name}-pytorch-{kind}": {"quantize": kind == "q8"}
    for name in ("moshiko", "moshika")
    for kind in ("bf16", "q8")
}
"""Repositories whose configuration the moshi package has by heart, but for this."""
_UNREAD: Final[Any] = None
"""Weights that the moshi package shall do without, where it makes a model of them."""
_MEMORY_HINT: Final = "Use fewer slots, a smaller context or a smaller dtype."


def checkpoint_name(model: str) -> str:
    """The public name of this model: the name of a bundled one, the repository's id, or a directory's name without
    its path."""
    directory = checkpoint_directory(model)
    return model if directory is None or bundled.directory_of(model) else directory.resolve().name


def checkpoint_directory(model: str) -> Path | None:
    """Directory of ``model``: of a bundled model, or in the local directory of this name; None for what is
    neither."""
    directory = bundled.directory_of(model)
    if directory is not None:
        return directory
    directory = Path(model).expanduser()
    return directory if model and directory.is_dir() else None


def open_checkpoint(model: str) -> loaders.CheckpointInfo:
    """The checkpoint that ``model`` names: a bundled one, a local directory, else a hub repository id.

    A repository is downloaded to the hub's cache unless it is there already. Raises
    :class:`ModelLoadError`, with a hint, for whatever goes wrong.
    """
    directory = checkpoint_directory(model)
    if directory is not None:
        if bundled.directory_of(model):
            _require_complete(model)
        checkpoint = _open_directory(directory)
    elif _HUB_ID.fullmatch(model) and not Path(model).expanduser().exists():
        with load_errors(f"{model} is no directory and cannot be had from the hub", _MODEL_HINT):
            checkpoint = loaders.CheckpointInfo.from_hf_repo(model)
    else:
        raise ModelLoadError(f"{model} is neither a directory nor a hub repository.", _MODEL_HINT)
    for weights in (checkpoint.moshi_weights, checkpoint.mimi_weights, checkpoint.lora_weights):
        _require_safetensors(weights)
    return checkpoint


def read_configuration(model: str) -> loaders.CheckpointInfo:
    """Read the configuration of ``model``, without its weights, which the result lacks. Never downloads anything.

    Raises :class:`ModelLoadError`, with a hint, for a model whose configuration is not on this machine.
    """
    directory = checkpoint_directory(model)
    path = _cached(model, "config.json") if directory is None else directory / "config.json"
    if path is None:
        if model not in _MOSHI_7B:
            raise ModelLoadError(
                f"The size of {model} is known once it has been downloaded.", "Start the server with it once."
            )
        return loaders.CheckpointInfo(_UNREAD, _UNREAD, _UNREAD, lm_config=loaders._lm_kwargs | _MOSHI_7B[model])
    config = _read_config(path)
    mimi_config: Path | None = None
    if config.get("mimi_config_name"):
        name = str(config["mimi_config_name"])
        mimi_config = _cached(model, name) if directory is None else directory / name
        if mimi_config is None:
            raise ModelLoadError(f"{name} of {model} is not on this machine.", "Start the server with it once.")
        _read_config(mimi_config)
    with load_errors(f"The configuration of {checkpoint_name(model)} cannot be read", _CONTENTS_HINT):
        found = loaders.CheckpointInfo.from_hf_repo(
            model, path, path, path, path, mimi_config, path if config.get("lora_name") else None
        )  # a path that is given is not looked for
        return without_weights(found)


def without_weights(checkpoint: loaders.CheckpointInfo) -> loaders.CheckpointInfo:
    """The same, of which the moshi package makes models without reading a weight."""
    return dataclasses.replace(checkpoint, moshi_weights=_UNREAD, mimi_weights=_UNREAD, lora_weights=None)


def _cached(repository: str, name: str) -> Path | None:
    """The file of a hub repository, where it has been downloaded before."""
    if not _HUB_ID.fullmatch(repository) or name.startswith("hf://"):
        return None
    path = try_to_load_from_cache(repository, name)
    return Path(path) if isinstance(path, str) else None


@contextmanager
def load_errors(what: str, hint: str) -> Iterator[None]:
    """Turns whatever the block raises into a :class:`ModelLoadError` that says ``what`` failed.

    The foreign text stays in ``__cause__`` and in the debug log.
    """
    try:
        yield
    except ModelLoadError:
        raise
    except Exception as error:  # the border of loading: moshi, torch, safetensors and the hub raise as they like
        logger.debug("%s", what, exc_info=error)
        kind = type(error).__name__
        raise ModelLoadError(f"{what} ({kind}).", _MEMORY_HINT if "Memory" in kind else hint) from error


def _open_directory(directory: Path) -> loaders.CheckpointInfo:
    """``from_hf_repo`` takes no directory: every path has to be named."""
    config_path = directory / "config.json"
    config = _read_config(config_path)
    mimi_config = _file(directory, config, "mimi_config_name", None)
    if isinstance(mimi_config, Path):
        _read_config(mimi_config)
    with load_errors(f"The checkpoint in {directory.name} cannot be opened", _CONTENTS_HINT):
        return loaders.CheckpointInfo.from_hf_repo(
            directory.name,
            moshi_weights=_file(directory, config, "moshi_name", loaders.MOSHI_NAME),
            mimi_weights=_file(directory, config, "mimi_name", loaders.MIMI_NAME),
            tokenizer=_file(directory, config, "tokenizer_name", loaders.TEXT_TOKENIZER_NAME),
            config_path=config_path,
            mimi_config_path=mimi_config,
            lora_weights=_file(directory, config, "lora_name", None),
        )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read.", _CONTENTS_HINT) from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise ModelLoadError(f"{path} is not JSON.", "Copy or download the file again.") from error
    if not isinstance(config, dict):
        raise ModelLoadError(f"{path} is JSON, but not an object.", "Copy or download the file again.")
    return config


def _file(directory: Path, config: dict[str, Any], key: str, default: str | None) -> Path | str | None:
    """The file that ``config`` names under ``key``; an ``hf://`` address stays as it is."""
    name = config.get(key) or default
    if name is None:
        return None
    if not isinstance(name, str):
        raise ModelLoadError(f"config.json of {directory.name}: {key} is not a file name.", _CONTENTS_HINT)
    if name.startswith("hf://"):
        return name
    path = directory / name
    if not path.is_file():
        raise ModelLoadError(f"{path} is missing.", _CONTENTS_HINT)
    return path


def _require_complete(model: str) -> None:
    missing = bundled.missing_files(model)
    if missing:
        raise ModelLoadError(
            f"The bundled model {model} lacks {', '.join(missing)}.",
            f"{invocation.install_anew(model)} --model echo runs without.",
        )


def _require_safetensors(weights: Path | None) -> None:
    """Other formats are pickles, which run code when they are opened."""
    if weights is not None and weights.suffix not in {".safetensors", ".sft", ".sfts"}:
        raise ModelLoadError(f"{weights.name} is not a safetensors file.", "Convert the weights to safetensors.")
