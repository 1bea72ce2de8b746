"""A model that does not fit is refused before it is loaded, and one that does is not."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from rtc_server import bundled
from rtc_server.config import DEFAULT_MODEL
from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai import fit
from rtc_server.models.kyutai.estimate import footprint
from rtc_server.models.kyutai.fit import load_if_it_fits, require_room
from rtc_server.models.kyutai.options import KyutaiOptions
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
