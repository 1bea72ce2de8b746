"""A model that does not fit is refused before it is loaded, and one that does is not."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rtc_server import bundled
from rtc_server.config import DEFAULT_MODEL
from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai import fit
from rtc_server.models.kyutai.beside import weights_bytes
from rtc_server.models.kyutai.checkpoint import open_checkpoint
from rtc_server.models.kyutai.estimate import footprint
from rtc_server.models.kyutai.fit import count_pages, load_if_it_fits, paged_needs, require_room
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.models.kyutai.page_count import RESERVE_BYTES, DeviceMemory, reserve_bytes
from rtc_server.system import memory

GIB = 2**30


def has_free(monkeypatch: pytest.MonkeyPatch, amount: int | None) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: amount)


def test_the_real_moshi_needs_more_than_a_small_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, as a CPU wants it; and nothing is downloaded to find that out."""
    has_free(monkeypatch, 23 * GIB)
    monkeypatch.setattr(fit, "open_checkpoint", lambda _: pytest.fail("it was downloaded"))
    with pytest.raises(ModelLoadError) as refused:
        load_if_it_fits(KyutaiOptions(DEFAULT_MODEL, slots=1))
    assert re.search(r"with one slot it needs 3\d\.\d GiB, and this machine has 23\.0 GiB free", refused.value.message)
    assert "fewer slots" in (refused.value.hint or "")


def test_a_model_fits_to_the_byte(monkeypatch: pytest.MonkeyPatch, moshi_checkpoint: Path) -> None:
    options = KyutaiOptions(str(moshi_checkpoint), slots=3, threads=1)
    held = footprint(options)
    needed = held.weights_bytes + 3 * held.session_bytes
    has_free(monkeypatch, needed)
    require_room(options)
    has_free(monkeypatch, needed - 1)
    with pytest.raises(ModelLoadError, match="with 3 slots it needs"):
        require_room(options)


def test_slots_need_memory_too(monkeypatch: pytest.MonkeyPatch, moshi_checkpoint: Path) -> None:
    held = footprint(KyutaiOptions(str(moshi_checkpoint), slots=1))
    has_free(monkeypatch, held.weights_bytes + 2 * held.session_bytes)
    require_room(KyutaiOptions(str(moshi_checkpoint), slots=2))
    with pytest.raises(ModelLoadError):
        require_room(KyutaiOptions(str(moshi_checkpoint), slots=3))


def test_where_the_free_memory_is_not_known_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    has_free(monkeypatch, None)
    require_room(KyutaiOptions(DEFAULT_MODEL, slots=1000))


def test_a_small_model_is_not_sized_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts as fast as before."""
    has_free(monkeypatch, 8 * GIB)
    monkeypatch.setattr(fit, "footprint", lambda _: pytest.fail("it was"))
    require_room(KyutaiOptions(bundled.PICO, slots=4))


@pytest.mark.parametrize("wrong", [{"model": "no/such directory"}, {"model": "", "slots": 0}, {"device": "cuda:99"}])
def test_what_else_is_wrong_is_said_by_loading_it(wrong: dict[str, Any], moshi_checkpoint: Path) -> None:
    options = dataclasses.replace(KyutaiOptions(str(moshi_checkpoint), 1), **wrong)
    with pytest.raises(ModelLoadError) as refused:
        load_if_it_fits(options)
    assert "memory" not in refused.value.message


def left_open(checkpoint: Path, slots: int = 3, **more: Any) -> KyutaiOptions:
    return KyutaiOptions(str(checkpoint), slots, threads=1, context=300, pages=None, **more)


def counted(options: KyutaiOptions, device: DeviceMemory | None) -> int:
    return count_pages(open_checkpoint(options.model), options, False, lambda _: device)


def test_pages_are_as_many_as_there_is_memory_for(moshi_checkpoint: Path) -> None:
    """When the weights are there: beside all else that the model takes, and a reserve."""
    options = left_open(moshi_checkpoint)
    held = footprint(options)
    needs = paged_needs(held, 3)
    assert needs is not None
    assert needs.pages_a_slot == 5
    all_else = 3 * (held.session_bytes + held.working_bytes) - 3 * held.page_bytes + reserve_bytes(3)
    for pages in (3, 8, 14):
        assert counted(options, DeviceMemory(all_else + pages * held.page_bytes)) == pages
    assert counted(options, DeviceMemory(0)) == 3
    assert counted(options, DeviceMemory(2**40)) == counted(options, None) == 15


def test_a_model_has_as_many_pages_as_were_counted(moshi_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And holds what was said of it: a page more is a page more."""
    options = left_open(moshi_checkpoint)
    least = footprint(options)
    needed = least.session_bytes * 3 + least.working_bytes * 3 + reserve_bytes(3)
    has_free(monkeypatch, needed + 4 * least.page_bytes)
    held = load_if_it_fits(options).memory()
    assert held.weights_bytes == least.weights_bytes
    assert held.cache_bytes - 4 * least.page_bytes == pytest.approx(3 * least.session_bytes, abs=3)


def test_models_beside_are_left_their_memory(moshi_checkpoint: Path, stt_checkpoint: Path) -> None:
    other = KyutaiOptions(str(stt_checkpoint), 2, threads=1)
    alone, beside = left_open(moshi_checkpoint), left_open(moshi_checkpoint, beside=(other,))
    page = footprint(alone).page_bytes
    needs = paged_needs(footprint(alone), 3)
    assert needs is not None
    free = needs.rest_bytes + reserve_bytes(3) + 10 * page
    theirs = footprint(other).bytes_of(2) + RESERVE_BYTES
    assert counted(alone, DeviceMemory(free)) == 10
    assert counted(beside, DeviceMemory(free)) == 3
    assert counted(beside, DeviceMemory(free + theirs)) == 10
    nothing = dataclasses.replace(beside, beside=(KyutaiOptions("no/such directory", 1),))
    assert counted(nothing, DeviceMemory(free)) == 10


def test_translators_beside_are_left_their_memory(moshi_checkpoint: Path, tmp_path: Path) -> None:
    """In half precision, although their files have all of it; one that cannot be sized up will not be loaded either."""
    page = footprint(left_open(moshi_checkpoint)).page_bytes
    whole, parts, nothing = (tmp_path / name for name in ("whole", "parts", "nothing"))
    for place, names in ((whole, ["model"]), (parts, ["model-00001-of-00002", "model-00002-of-00002"]), (nothing, [])):
        place.mkdir()
        for name in names:
            save_file({"a": torch.zeros(page // 2), "b": torch.zeros(page // 4, 2)}, place / f"{name}.safetensors")
    save_file({"a": torch.zeros(page)}, whole / "model-00001-of-00001.safetensors")  # the same again, as some have it
    alone = left_open(moshi_checkpoint)
    beside = left_open(moshi_checkpoint, translators=(str(whole), str(parts), str(nothing)))
    needs = paged_needs(footprint(alone), 3)
    assert needs is not None
    free = needs.rest_bytes + reserve_bytes(3) + 10 * page
    assert counted(alone, DeviceMemory(free)) == 10
    assert counted(beside, DeviceMemory(free)) == 3
    assert counted(beside, DeviceMemory(free + 2 * RESERVE_BYTES)) == 4
    assert counted(beside, DeviceMemory(free + 2 * RESERVE_BYTES + 6 * page)) == 10


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, (5).to_bytes(8, "little") + b"[[[[[", b"\2" + bytes(7) + b"[]"])
def test_files_that_are_no_weights_take_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert weights_bytes(str(tmp_path)) is None


def test_one_page_a_slot_is_what_a_model_needs_that_takes_what_is_free(
    monkeypatch: pytest.MonkeyPatch, moshi_checkpoint: Path
) -> None:
    options = left_open(moshi_checkpoint)
    needed = footprint(options).bytes_of(3)
    assert needed < footprint(dataclasses.replace(options, pages=15)).bytes_of(3)
    has_free(monkeypatch, needed)
    require_room(options)
    has_free(monkeypatch, needed - 1)
    with pytest.raises(ModelLoadError, match="with 3 slots it needs"):
        require_room(options)
