"""What passes between the host and the device in a step: the buffers, and that there is nothing else. Counted on
torch's meta device, which stands for any that is not the host, and from which nothing can be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from moshi.utils.compile import no_compile
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.models.kyutai import buckets, page_table, wipe
from rtc_server.models.kyutai.attention import read_what_is_filled
from rtc_server.models.kyutai.buckets import chosen
from rtc_server.models.kyutai.checkpoint import open_checkpoint
from rtc_server.models.kyutai.depth import without_rings
from rtc_server.models.kyutai.exchange import Exchange
from rtc_server.models.kyutai.kv_cache import stored_as
from rtc_server.models.kyutai.model import _Nets, make_generator
from rtc_server.models.kyutai.options import KvDtype, KyutaiOptions
from rtc_server.models.kyutai.pages import pages_for
from tests.support.kyutai_rows import fresh_row_tensor

ROWS = 3
CPU = torch.device("cpu")
ALL, NONE = np.ones(ROWS, np.bool_), np.zeros(ROWS, np.bool_)
SOME = np.array([True, False, True])
ONE = np.array([False, False, True])


def test_rows_that_are_not_heard_are_silent() -> None:
    """Whatever is in them: a NaN would be one in every row that a convolution is computed with."""
    exchange = Exchange(ROWS, 5, CPU)
    pcm = np.full((ROWS, FRAME_SAMPLES), np.nan, dtype=np.float32)
    pcm[SOME] = 0.5
    exchange.send(pcm, SOME, ALL, NONE)
    assert exchange.frames.shape == (ROWS, 1, FRAME_SAMPLES)
    assert exchange.frames[:, 0].unique(dim=1).flatten().tolist() == [0.5, 0.0, 0.5]
    assert [mask.tolist() for mask in (exchange.heard, exchange.active, exchange.ready)] == [
        [1.0, 0.0, 1.0],
        [1.0, 1.0, 1.0],
        [0.0, 0.0, 0.0],
    ]


def test_noise_is_where_it_was_written() -> None:
    exchange = Exchange(ROWS, 5, CPU)
    exchange.host_noise[:] = np.arange(15).reshape(ROWS, 5)
    exchange.send(np.ones((ROWS, FRAME_SAMPLES), np.float32), ALL, ALL, ALL)
    assert exchange.noise.tolist() == np.arange(15.0).reshape(ROWS, 5).tolist()


@pytest.mark.parametrize("token", [-2, 0, 32_000, 2**24 - 1])
def test_answers_come_back_as_they_are(token: int) -> None:
    """Text tokens are whole numbers, and as float32 they stay so."""
    exchange = Exchange(ROWS, 0, CPU)
    audio = torch.randn((ROWS, 1, FRAME_SAMPLES), dtype=torch.bfloat16)
    tokens, pcm = exchange.receive([torch.full((ROWS, 1), token), audio])
    assert tokens.astype(np.int64).tolist() == [[token]] * ROWS
    assert np.array_equal(pcm, audio[:, 0].float().numpy())
    (alone,) = exchange.receive([torch.full((ROWS, 2), token)])
    assert alone.shape == (ROWS, 2)


class Crossings(TorchDispatchMode):
    """Lists the operations that touch the host and the device: ``(name, inputs' devices, outputs' devices)``."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str], list[str]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given, out = (
            [each.device.type for each in _pytree.tree_leaves(tree) if isinstance(each, torch.Tensor)]
            for tree in ((args, kwargs), made)
        )
        if len({*given, *out}) > 1:
            self.found.append((func._schema.name, given, out))
        return made


@contextmanager
def on_meta(checkpoint: str, kv_dtype: KvDtype = "auto", pages: int = 0, in_place: bool = False) -> Iterator[_Nets]:
    """The nets of a model, which computes nothing: what a fresh row looks like cannot be read there."""
    options = KyutaiOptions(checkpoint, slots=ROWS, kv_dtype=kv_dtype, pages=pages)

    found = open_checkpoint(checkpoint)
    mimi, lm = found.get_mimi("cpu").to("meta"), found.get_moshi("cpu", torch.float32).to("meta")
    with pytest.MonkeyPatch.context() as patch, torch.no_grad(), no_compile():
        patch.setattr(wipe, "_row_tensor", fresh_row_tensor)
        patch.setattr(page_table, "PAGE_FRAMES", 4)
        patch.setattr(buckets, "LEAST_ON_A_GPU", 2)
        without_rings(lm)
        paged = pages_for(lm, ROWS, pages, in_place=in_place)
        filled = read_what_is_filled(mimi, lm, stored_as(kv_dtype), paged)
        filled.to(10)
        yield _Nets(mimi, make_generator(lm, found, options), filled, ROWS, 1, paged)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("moshi", {}),
        ("stt", {}),
        ("moshi", {"kv_dtype": "float8"}),
        ("moshi", {"pages": 100}),
        ("moshi", {"pages": 100, "kv_dtype": "float8"}),
        ("stt", {"pages": 100, "kv_dtype": "bfloat16"}),
        ("moshi", {"pages": 100, "in_place": True}),
        ("moshi", {"pages": 100, "kv_dtype": "float8", "in_place": True}),
    ],
    ids=str,
)
def test_a_step_waits_for_nothing_but_its_answers(
    request: pytest.FixtureRequest, kind: str, options: dict[str, Any]
) -> None:
    """One copy there; what is computed of it reads nothing of the host, and the host nothing of it: on this device that
    raises. Masks that change in between are no exception, nor pages that rows come to have."""
    with on_meta(str(request.getfixturevalue(f"{kind}_checkpoint")), **options) as nets:
        for number, (heard, active, ready) in enumerate(
            ((ALL, ALL, ALL), (NONE, SOME, NONE), (SOME, ALL, SOME), (SOME, SOME, SOME), (ONE, ONE, ONE))
        ):
            with Crossings() as crossings:
                bucket = nets.buckets.of(active.sum())
                assert bucket.size == (ROWS if active.all() or nets.pages is None else 2)
                rows = chosen(active, bucket.size)
                if nets.pages is not None:
                    nets.pages.prepare(active, np.full(ROWS, 4 * number), nets.exchange.host_places, rows)
                nets.exchange.send(np.zeros((ROWS, FRAME_SAMPLES), np.float32), heard, active, ready, rows)
                tokens, answers = nets.step(bucket, rows, heard[rows], active[rows], ready[rows])
            assert {len(each) for each in (tokens, *answers)} == {bucket.size}
            assert [(name, out) for name, _, out in crossings.found] == [("aten::copy_", ["meta"])]
            assert {each.device.type for each in (tokens, *answers)} == {"meta"}
            assert len(answers) == (2 if kind == "moshi" and ready.any() else 1)


@pytest.mark.parametrize("options", [{}, {"kv_dtype": "float8"}, {"pages": 100}], ids=str)
def test_a_reset_waits_for_nothing(moshi_checkpoint: Any, options: dict[str, Any]) -> None:
    """Rows that end are wiped while others talk. Of pages it tells the device which; that too without reading it."""
    with on_meta(str(moshi_checkpoint), **options) as nets:
        if nets.pages is not None:
            nets.pages.prepare(ALL, np.zeros(ROWS, dtype=np.int64), nets.exchange.host_places)
        with Crossings() as crossings:
            nets.reset([0, 2])
        assert crossings.found == []


def test_what_would_wait_is_found(moshi_checkpoint: Any) -> None:
    with on_meta(str(moshi_checkpoint)) as nets, Crossings() as crossings:
        there = nets.exchange.frames + 0
        there.copy_(torch.zeros(there.shape))
        assert len(crossings.found) == 1
        with pytest.raises(RuntimeError, match="meta"):
            there.flatten()[0].item()
        with pytest.raises(NotImplementedError, match="meta"):
            there.cpu()
