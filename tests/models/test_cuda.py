"""What only a device can do wrong: graphs that outlive a conversation, and errors after which nothing on it works.

That rows are independent, that a wiped row holds nothing and that poison stays in its row is tested in
``test_kyutai.py``, on CUDA as well where there is one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from moshi.utils.compile import CUDAGraphed

from lab.waiting import until
from rtc_server.engine.model import BoolArray, FloatArray, ModelInfo, RowOutput
from rtc_server.errors import EngineFailed
from rtc_server.models.kyutai import buckets, page_attention, page_table
from rtc_server.models.kyutai.attention import GraphOfEachExtent
from rtc_server.models.kyutai.buckets import Part
from rtc_server.models.kyutai.fit import load_if_it_fits
from rtc_server.models.kyutai.model import KyutaiModel
from rtc_server.models.kyutai.options import KvDtype, KyutaiOptions
from tests.support.engines import Ear, child, frame, running
from tests.support.fake_models import MAGIC
from tests.support.kyutai_rows import alone, assert_same, greedy, noise, only, random_schedule, tensors_in
from tests.support.triton_here import need_triton

pytestmark = pytest.mark.slow

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
COMPILE_S = 300.0
"""An engine's start, and the compiler's at that."""


def graphs(model: KyutaiModel) -> Iterator[CUDAGraphed]:
    """Every part that is captured as a graph, the setting of masks included, for each size of a step."""
    sizes = model._open.buckets
    for part in sizes._buckets:
        if isinstance(part, Part):
            yield from (part._gather, part._scatter)
    for state in itertools.chain(*sizes._states.values()):
        for value in vars(state).values():
            if isinstance(value, CUDAGraphed):
                yield value
            elif isinstance(value, GraphOfEachExtent):
                yield from value.graphs.values()


def addresses(model: KyutaiModel) -> dict[str, int]:
    """Where the attention caches are: a graph reads and writes there for ever."""
    return {
        path: tensor.data_ptr()
        for name, state in model.streaming_states.items()
        for path, tensor in tensors_in(name, state)
        if path.endswith("kv_cache.cache")
    }


@needs_cuda
@pytest.mark.timeout(600)
def test_graphs_are_captured_in_the_warm_up_and_survive_resets(
    moshi_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very same graphs go on over the very same memory, and say what a fresh model of one slot would."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = greedy(moshi_checkpoint, 4, device="cuda")
    model.warm_up()
    captured = [graph._graph for graph in graphs(model)]
    # Mimi's four halves, the language model's two, and the masks of both; one more only runs inside another.
    assert sum(graph is not None for graph in captured) == 8
    before = addresses(model)

    conversations = random_schedule(model, steps=60, seed=7)
    assert len(conversations) > 4, "no slot was used again"
    assert [graph._graph for graph in graphs(model)] == captured
    assert addresses(model) == before
    for conversation in conversations:
        assert_same(conversation, alone(greedy(moshi_checkpoint, 1, device="cuda"), conversation.heard))


@needs_cuda
@pytest.mark.parametrize("kv_dtype", ["auto", "bfloat16", "float8"])
@pytest.mark.timeout(600)
def test_pages_are_read_in_place_within_the_graphs(
    moshi_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, kv_dtype: KvDtype
) -> None:
    """One graph for rows of any length, captured in the warm-up, over the same pages for ever: it follows what it is
    told in each step, and says what a model does that copies its pages."""
    need_triton()
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(page_table, "PAGE_FRAMES", 4)
    options = KyutaiOptions(
        *(str(moshi_checkpoint), 4, "cuda", "float32"), temp=0.0, temp_text=0.0, pages=4 * 3, kv_dtype=kv_dtype
    )
    in_place = load_if_it_fits(options)
    monkeypatch.setattr(page_attention, "at_hand", lambda _: False)
    copied = load_if_it_fits(options)
    assert in_place._open.pages is not None
    assert copied._open.pages is not None
    assert (in_place._open.pages.in_place, copied._open.pages.in_place) == (True, False)
    in_place.warm_up()
    captured = [graph._graph for graph in graphs(in_place)]
    assert sum(graph is not None for graph in captured) == 8
    before = addresses(in_place)
    expected, found = (random_schedule(model, steps=60, seed=7) for model in (copied, in_place))
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
    assert [graph._graph for graph in graphs(in_place)] == captured
    assert addresses(in_place) == before


@needs_cuda
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.timeout(600)
def test_each_size_of_a_step_has_its_graphs(
    moshi_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    """Captured in the warm-up, over the same memory for ever; and they say what those of the whole batch do."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(page_table, "PAGE_FRAMES", 4)
    monkeypatch.setattr(buckets, "LEAST_ON_A_GPU", 1)
    if in_place:
        need_triton()
    else:
        monkeypatch.setattr(page_attention, "at_hand", lambda _: False)
    options = KyutaiOptions(str(moshi_checkpoint), 4, "cuda", "float32", temp=0.0, temp_text=0.0, pages=4 * 3)
    model = load_if_it_fits(options)
    model.warm_up()
    assert model._open.buckets.sizes == [1, 2, 4]
    captured = [graph._graph for graph in graphs(model)]
    assert sum(graph is not None for graph in captured) == 3 * 8 + 2 * 2, "what is copied there and back, too"
    before = addresses(model)
    found = random_schedule(model, steps=60, seed=7)
    assert [graph._graph for graph in graphs(model)] == captured
    assert addresses(model) == before
    monkeypatch.setattr(buckets, "sizes", lambda slots, **_: [slots])
    for one, other in zip(found, random_schedule(load_if_it_fits(options), steps=60, seed=7), strict=True):
        assert_same(one, other)


@needs_cuda
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(32, 32, 128), (20, 20, 128), (16, 4, 64), (2, 2, 16)])
def test_pages_are_read_right_at_the_shapes_of_models(
    stored: torch.dtype, heads: int, kv_heads: int, width: int
) -> None:
    need_triton()
    dtype = torch.bfloat16 if stored.itemsize == 1 else stored
    error = page_attention._largest_error(heads, kv_heads, width, dtype, stored, torch.device("cuda"))
    assert error <= {torch.float32: 1e-5, torch.float16: 2**-10}.get(dtype, 2**-7)


@needs_cuda
@pytest.mark.timeout(600)
def test_bfloat16_as_it_is_served(moshi_checkpoint: Path) -> None:
    """The default on CUDA: every row that is ready speaks, in finite numbers."""
    model = load_if_it_fits(KyutaiOptions(str(moshi_checkpoint), slots=3, device="cuda", seed=1))
    model.warm_up()
    rng = np.random.default_rng(0)
    for step in range(24):
        if step == 12:
            model.reset(only(3, 1))
        made = model.step(noise(rng, 3), np.ones(3, dtype=np.bool_))
        for row, output in enumerate(made):
            assert output is not None
            ready = step >= 13 if row == 1 and step >= 12 else step >= 1
            assert (output.pcm is not None) == ready
            assert output.pcm is None or np.isfinite(output.pcm).all()


class FragileModel:
    """A real model whose device fails when a row hears :data:`MAGIC` first: on CUDA by an assertion in a kernel, after
    which nothing in the process can use it any more."""

    def __init__(self, model: KyutaiModel) -> None:
        self._model = model
        self.warm_up, self.reset, self.memory, self.close = model.warm_up, model.reset, model.memory, model.close

    @property
    def info(self) -> ModelInfo:
        return self._model.info

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        if (pcm[active, 0] == MAGIC).any():
            beyond = torch.tensor([99], device=self.info.device)
            torch.zeros(4, device=self.info.device)[beyond].cpu()
        return self._model.step(pcm, active)


def fragile(options: KyutaiOptions) -> FragileModel:
    return FragileModel(load_if_it_fits(options))


async def test_an_engine_whose_device_fails_is_started_again(
    moshi_checkpoint: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own, for the old one's device is lost: everybody is told, and the next may speak."""
    monkeypatch.setattr("rtc_server.engine.supervisor._RESTART_PAUSES_S", (0.0,))
    options = KyutaiOptions(str(moshi_checkpoint), slots=2, device=device, threads=1)
    async with running(child(f"{__name__}:fragile", options)) as client:
        ears = [Ear(), Ear()]
        streams = [await client.open(ear) for ear in ears]
        streams[1].push(frame())
        await until(lambda: ears[1].frames == [1])
        pid = client.pid
        streams[0].push(frame(MAGIC))
        await until(lambda: all(ear.errors for ear in ears), "what it costs them", COMPILE_S)
        assert [type(error) for ear in ears for error in ear.errors] == [EngineFailed, EngineFailed]
        await until(lambda: client.ready, "the next engine", COMPILE_S)
        assert client.restarts == 1
        assert client.pid != pid
        ear = Ear()
        stream = await client.open(ear)
        for _ in range(3):
            assert await stream.feed(frame())
        await until(lambda: len(ear.frames) == 3)
        assert ear.pcm[0] is None
        assert ear.pcm[2] is not None
