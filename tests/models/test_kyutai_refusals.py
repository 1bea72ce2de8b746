"""Checkpoints that cannot be loaded are refused with a sentence that says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from moshi.models import loaders

from rtc_server import bundled
from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai.model import load
from rtc_server.models.kyutai.options import KyutaiOptions


def broken_copy(checkpoint: Path, tmp_path: Path, **config: object) -> Path:
    """A copy of a checkpoint whose config.json says something else."""
    directory = tmp_path / "broken"
    shutil.copytree(checkpoint, directory)
    original = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(original | config))
    return directory


def assert_refused(options: KyutaiOptions, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message) as caught:
        load(options)
    assert caught.value.hint


@pytest.mark.parametrize("model", ["/no/such/place", "./nowhere", "nowhere", "", "a/b/c"])
def test_a_model_that_is_nowhere(model: str) -> None:
    assert_refused(KyutaiOptions(model, 1), "neither a directory nor a hub repository")


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("secret detail of the network")

    monkeypatch.setattr(loaders, "hf_hub_download", unreachable)
    assert_refused(KyutaiOptions("kyutai/moshiko-pytorch-bf16", 1), r"cannot be had from the hub \(OSError\)\.$")


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "mimi.safetensors", "mimi.json", "tokenizer.model"]
)
def test_a_missing_file(moshi_checkpoint: Path, tmp_path: Path, name: str) -> None:
    directory = broken_copy(moshi_checkpoint, tmp_path)
    (directory / name).unlink()
    assert_refused(KyutaiOptions(str(directory), 1), name)


@pytest.mark.parametrize("name", bundled.FILES)
def test_a_bundled_model_that_is_not_all_there(
    moshi_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    directory = broken_copy(moshi_checkpoint, tmp_path)
    (directory / name).unlink()
    monkeypatch.setattr(bundled, "_DIRECTORIES", {"pico": directory})
    assert_refused(KyutaiOptions("pico", 1), rf"^The bundled model pico lacks {name}\.$")


@pytest.mark.parametrize("name", ["config.json", "mimi.json"])
@pytest.mark.parametrize("content", [b"{oops", b"\xff\xfe", b"[1, 2]"])
def test_a_configuration_that_is_none(moshi_checkpoint: Path, tmp_path: Path, name: str, content: bytes) -> None:
    directory = broken_copy(moshi_checkpoint, tmp_path)
    (directory / name).write_bytes(content)
    assert_refused(KyutaiOptions(str(directory), 1), f"{name} is .*JSON")


@pytest.mark.parametrize("name", ["model.safetensors", "mimi.safetensors", "tokenizer.model"])
def test_a_file_with_something_else_in_it(moshi_checkpoint: Path, tmp_path: Path, name: str) -> None:
    directory = broken_copy(moshi_checkpoint, tmp_path)
    (directory / name).write_bytes(b"not what it says")
    assert_refused(KyutaiOptions(str(directory), 1), r"broken cannot be loaded \(\w+\)\.$")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dim": 64}, "broken cannot be loaded"),
        ({"no_such_option": 1}, "broken cannot be loaded"),
        ({"moshi_name": 5}, "moshi_name is not a file name"),
        ({"model_type": "tts"}, "'tts'"),
        ({"mimi_name": "config.json"}, "not a safetensors file"),
    ],
)
def test_a_configuration_that_does_not_fit(
    moshi_checkpoint: Path, tmp_path: Path, config: dict[str, object], message: str
) -> None:
    assert_refused(KyutaiOptions(str(broken_copy(moshi_checkpoint, tmp_path, **config)), 1), message)


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "meta", ""])
def test_a_device_that_is_not_there(moshi_checkpoint: Path, device: str) -> None:
    assert_refused(KyutaiOptions(str(moshi_checkpoint), 1, device=device), "device|cuda:99")


def test_no_slots(moshi_checkpoint: Path) -> None:
    assert_refused(KyutaiOptions(str(moshi_checkpoint), 0), "at least one slot")


def test_guidance_without_conditions(moshi_checkpoint: Path) -> None:
    assert_refused(KyutaiOptions(str(moshi_checkpoint), 1, cfg_coef=2.0), "no conditions")
