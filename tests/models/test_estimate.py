"""What a model will hold is known before it is loaded, to the byte, and without its weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from moshi.models import loaders

from rtc_server.config import DEFAULT_MODEL
from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai.estimate import Footprint, footprint
from rtc_server.models.kyutai.model import load
from rtc_server.models.kyutai.options import KyutaiOptions

GIB, MIB = 2**30, 2**20
MIMI_WEIGHTS = 367 * MIB
MIMI_SESSION = 15.7 * MIB


@pytest.fixture(autouse=True)
def empty_hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing has been downloaded before, and nothing will be."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a check must not download")

    monkeypatch.setattr(loaders, "hf_hub_download", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("moshi", {}),
        ("moshi", {"context": 5}),
        ("moshi", {"dtype": "bfloat16"}),
        ("stt", {}),
        ("hibiki", {"cfg_coef": 3.0}),
    ],
    ids=str,
)
def test_it_is_what_a_loaded_model_holds(request: pytest.FixtureRequest, kind: str, options: dict[str, Any]) -> None:
    wanted = KyutaiOptions(str(request.getfixturevalue(f"{kind}_checkpoint")), slots=3, threads=1, **options)
    held = load(wanted).memory()
    assert footprint(wanted) == Footprint(held.weights_bytes, held.cache_bytes // 3)
    assert (held.rest_bytes, held.device_total_bytes) == (0, 0)


def test_the_real_moshi_is_as_large_as_its_makers_say() -> None:
    """14.3 GiB of weights in bfloat16; 3,000 frames of 512 KiB a session; Mimi on top. From the moshi package's own
    configuration."""
    found = footprint(KyutaiOptions(DEFAULT_MODEL, slots=2, device="cuda"))
    assert found.weights_bytes == pytest.approx(14.32 * GIB + MIMI_WEIGHTS, rel=0.001)
    assert found.session_bytes == pytest.approx(1500 * MIB + MIMI_SESSION, rel=0.001)


def test_moshi_in_int8_with_small_caches() -> None:
    """A byte for each weight of a linear layer and four for each of its rows; embeddings stay. The cache: a byte for a
    number, or two. Known without bitsandbytes."""
    moshi = KyutaiOptions(DEFAULT_MODEL, slots=1, device="cuda", quantize="int8")
    found = footprint(moshi)
    assert 7.2 * GIB < found.weights_bytes - MIMI_WEIGHTS < 8 * GIB
    assert found == footprint(KyutaiOptions("kyutai/moshiko-pytorch-q8", slots=1, device="cuda"))
    assert (found.session_bytes, found.working_bytes) == (pytest.approx(1500 * MIB + MIMI_SESSION, rel=0.001), 0)
    small = footprint(dataclasses.replace(moshi, kv_dtype="float8"))
    assert small.session_bytes == pytest.approx(750 * MIB + MIMI_SESSION, rel=0.001)
    assert small.working_bytes == 1500 * MIB // 32


def test_a_repository_that_was_downloaded_before(moshi_checkpoint: Path, empty_hub_cache: Path) -> None:
    snapshot = empty_hub_cache / "models--some--model" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (empty_hub_cache / "models--some--model" / "refs").mkdir()
    (empty_hub_cache / "models--some--model" / "refs" / "main").write_text("0")
    for name in ("config.json", "mimi.json"):
        (snapshot / name).write_bytes((moshi_checkpoint / name).read_bytes())
    assert footprint(KyutaiOptions("some/model", 1)) == footprint(KyutaiOptions(str(moshi_checkpoint), 1))


def test_the_size_of_one_that_was_not_is_not_known() -> None:
    with pytest.raises(ModelLoadError, match="once it has been downloaded"):
        footprint(KyutaiOptions("some/model", 1))
