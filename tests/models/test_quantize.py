"""Weights of int8: from a checkpoint that has them, and made while one is loaded. On a CPU, where bitsandbytes has the
same arithmetic in another order."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from moshi.utils.quantize import QLinear
from safetensors.torch import load_file, save_file

from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai.checkpoint import open_checkpoint
from rtc_server.models.kyutai.estimate import Footprint, footprint
from rtc_server.models.kyutai.model import KyutaiModel, load
from rtc_server.models.kyutai.options import KyutaiOptions
from tests.conftest import need_commands
from tests.models.test_pico import QUESTIONS, talk
from tests.support.kyutai_rows import alone, assert_same, noise, random_schedule

pytestmark = pytest.mark.slow

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes: pip install -e '.[quantize]'"
)


@pytest.fixture(scope="module")
def plain(moshi_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint whose linear layers have no biases, as the real ones."""
    directory = tmp_path_factory.mktemp("int8") / "plain"
    shutil.copytree(moshi_checkpoint, directory)
    weights = load_file(directory / "model.safetensors")
    biases = [name for name in weights if name.endswith(".bias")]
    assert biases
    for name in biases:
        del weights[name]
    save_file(weights, directory / "model.safetensors")
    configure(directory, bias_proj=False)
    return directory


def configure(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def quantized(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a quantised checkpoint, as Kyutai's own (kyutai/moshiko-pytorch-q8) are written."""
    directory = tmp_path_factory.mktemp("int8") / "quantized"
    shutil.copytree(plain, directory)
    lm = load(options(plain, quantize="int8"))._open.lm_gen.lm_model
    save_file({name: value.contiguous() for name, value in lm.state_dict().items()}, directory / "model.safetensors")
    configure(directory, quantize=True)
    return directory


def options(checkpoint: Path, **changes: object) -> KyutaiOptions:
    greedy = KyutaiOptions(str(checkpoint), 2, temp=0.0, temp_text=0.0, threads=1)
    return dataclasses.replace(greedy, **changes)  # type: ignore[arg-type]


def layers(model: KyutaiModel) -> list[QLinear]:
    lm = model._open.lm_gen.lm_model
    assert not [name for name, module in lm.named_modules() if isinstance(module, torch.nn.Linear)]
    return [module for module in lm.modules() if isinstance(module, QLinear)]


@needs_bitsandbytes
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_scales_stay_float32_whatever_the_rest_is(quantized: Path, dtype: str) -> None:
    """The package's loader casts them, and its layer then refuses to run."""
    model = load(options(quantized, dtype=dtype))
    found = layers(model)
    assert found
    assert {layer.weight.dtype for layer in found} == {torch.int8}
    assert {layer.weight_scb.dtype for layer in found} == {torch.float32}
    assert model._open.lm_gen.lm_model.dtype == getattr(torch, dtype)
    model.warm_up()


@needs_bitsandbytes
def test_the_package_by_itself_casts_the_scales(quantized: Path) -> None:
    """When this fails, ``load_lm`` need not go round by float32 any more."""
    lm = open_checkpoint(str(quantized)).get_moshi("cpu", torch.bfloat16)
    assert {module.weight_scb.dtype for module in lm.modules() if isinstance(module, QLinear)} == {torch.bfloat16}


@needs_bitsandbytes
def test_pico_answers_in_int8() -> None:
    need_commands("espeak-ng")
    model = load(KyutaiOptions("pico", len(QUESTIONS), quantize="int8", threads=2))
    said = [answer.text for answer in talk(model, [[(5, question)] for question in QUESTIONS], frames=65)]
    right = sum(one == answer for one, answer in zip(said, QUESTIONS.values(), strict=True))
    assert right >= len(QUESTIONS) - 1, said


@needs_bitsandbytes
def test_a_checkpoint_that_is_quantised_says_what_one_says_that_is_made_so(plain: Path, quantized: Path) -> None:
    frames = list(noise(np.random.default_rng(0), 20))
    loaded, made = load(options(quantized, slots=1)), load(options(plain, slots=1, quantize="int8"))
    assert_same(alone(loaded, frames), alone(made, frames))


@needs_bitsandbytes
def test_rows_are_independent(quantized: Path) -> None:
    for conversation in random_schedule(load(options(quantized, slots=3)), steps=30, seed=1):
        assert_same(conversation, alone(load(options(quantized, slots=1)), conversation.heard))


@needs_bitsandbytes
@pytest.mark.parametrize("kv_dtype", ["auto", "float8"])
def test_its_size_is_known_before_it_is_loaded(plain: Path, quantized: Path, kv_dtype: str) -> None:
    for wanted in (options(quantized, kv_dtype=kv_dtype), options(plain, quantize="int8", kv_dtype=kv_dtype)):
        held, known = load(wanted).memory(), footprint(wanted)
        assert Footprint(known.weights_bytes, known.session_bytes) == Footprint(
            held.weights_bytes, held.cache_bytes // 2
        )


@needs_bitsandbytes
def test_what_cannot_be_quantised_says_so(moshi_checkpoint: Path) -> None:
    with pytest.raises(ModelLoadError, match="with a bias"):
        load(options(moshi_checkpoint, quantize="int8"))


def test_without_bitsandbytes_it_says_what_to_install(
    plain: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    marked = tmp_path / "marked"
    shutil.copytree(plain, marked)
    configure(marked, quantize=True)
    for wanted in (options(marked), options(plain, quantize="int8")):
        with pytest.raises(ModelLoadError, match="bitsandbytes") as caught:
            load(wanted)
        assert "pip install" in (caught.value.hint or "")
