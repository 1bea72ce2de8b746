"""The CUDA path from the loading of a model to its steps and resets, on a GPU that is only pretended: what is on two
devices raises, and what is read back as well; and of what crosses, a step has two copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from moshi.models import loaders

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.models.kyutai import buckets, page_attention, page_table
from rtc_server.models.kyutai import model as kyutai_model
from rtc_server.models.kyutai.checkpoint import open_checkpoint
from rtc_server.models.kyutai.fit import count_pages
from rtc_server.models.kyutai.model import KyutaiModel, build
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.models.kyutai.page_table import RESERVE_FRAMES, places
from tests.support.fake_cuda import DEVICE, Crossing, FakeWeights, fake_cuda
from tests.support.kyutai_rows import only, tensors_in

pytestmark = pytest.mark.slow

SLOTS = 3
THERE = Crossing("copy_", ("cuda", "cpu"), ("cuda",))
BACK = Crossing("copy_", ("cpu", "cuda"), ("cpu",))


@pytest.mark.parametrize(
    ("kind", "more", "in_place"),
    [
        ("moshi", {}, False),
        ("stt", {"kv_dtype": "float8"}, False),
        ("moshi", {"pages": None}, False),  # in place, see Moshi 7B below
        *(("moshi", {"pages": None, "kv_dtype": "float8"}, in_place) for in_place in (False, True)),
    ],
    ids=str,
)
@pytest.mark.timeout(300)
def test_a_gpu_is_asked_for_nothing_but_the_answers(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str, more: dict[str, Any], in_place: bool
) -> None:
    """In the types of the GPU, through a warm-up, steps of all rows, of two and of one in a bucket of two, and resets.
    Pages are copied, or read by a kernel that has a shape here and no contents."""
    monkeypatch.setattr(page_attention, "proven", lambda *_: in_place)
    monkeypatch.setattr(page_table, "PAGE_FRAMES", 4)
    monkeypatch.setattr(buckets, "LEAST_ON_A_GPU", 2)
    monkeypatch.setattr(kyutai_model, "_WARM_UP_STEPS", 1)  # the others are for graphs, which are none here
    path = str(request.getfixturevalue(f"{kind}_checkpoint"))
    options = KyutaiOptions(path, SLOTS, DEVICE, seed=1, **more)
    with fake_cuda() as device:
        model = build(kind, FakeWeights.of(open_checkpoint(path)), options, count_pages=count_pages)
        everyone = np.ones(SLOTS, dtype=np.bool_)
        assert (model.pages_use(everyone) is not None) == ("pages" in more)
        assert model.computes_apart
        model.warm_up()
        for rows in (everyone, only(SLOTS, 0, 2), only(SLOTS, 1)):
            device.crossings.clear()
            waits = device.waits
            model.step(np.zeros((SLOTS, FRAME_SAMPLES), dtype=np.float32), rows)
            assert device.crossings == [THERE, BACK]
            assert device.waits == waits + 1
        device.crossings.clear()
        model.reset(only(SLOTS, 0, 2))
        assert all(crossing.made == ("cuda",) for crossing in device.crossings), "which rows and pages, and no more"
        assert device.waits == waits + 1


@pytest.mark.timeout(600)  # seconds of computing in a worker that gives way to all others
def test_moshi_7b_itself_asks_for_nothing_else_and_moves_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its real shapes and types, in a step of all rows and one of some in a bucket. Every operation of the CUDA path is
    there for such tensors, on one device; and what a graph of a step would read stays in its place."""
    monkeypatch.setattr(page_attention, "proven", lambda *_: True)
    options = KyutaiOptions("", 16, DEVICE, seed=1, pages=16 * places(RESERVE_FRAMES))
    with fake_cuda() as device:
        real = loaders.CheckpointInfo(None, None, None)  # type: ignore[arg-type]
        model = build("moshi-7b", FakeWeights.of(real), options)
        assert model._open.buckets.sizes == [8, 16]
        pcm = np.zeros((16, FRAME_SAMPLES), dtype=np.float32)
        for rows in (16, 5):
            device.crossings.clear()
            waits, before = device.waits, states(model)
            model.step(pcm, np.arange(16) < rows)
            assert (device.crossings, device.waits) == ([THERE, BACK], waits + 1)
            moved = [path for path, tensor in states(model).items() if tensor is not before[path]]
            assert not moved, f"{len(moved)} of {len(before)}"
            assert len(before) > 100


def states(model: KyutaiModel) -> dict[str, torch.Tensor]:
    """All tensors of the streaming states of all slots: where they are is where a graph reads them."""
    return {path: tensor for name, state in model.streaming_states.items() for path, tensor in tensors_in(name, state)}


def test_what_a_gpu_would_refuse_or_wait_for_is_found() -> None:
    with fake_cuda() as device, torch.no_grad():
        there, here = torch.zeros((2, 3), device=DEVICE), torch.zeros((2, 3))
        for wrong in (
            lambda: there + here,
            lambda: there.index_copy_(0, torch.zeros(1, dtype=torch.long), there[:1]),
            lambda: there.sum().item(),
            there.tolist,
            there.nonzero,
        ):
            with pytest.raises((RuntimeError, NotImplementedError)):
                wrong()
        device.crossings.clear()
        there.cpu()
        assert [crossing.made for crossing in device.crossings] == [("cpu",)]
