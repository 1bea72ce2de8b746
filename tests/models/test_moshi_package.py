"""What this server assumes of the moshi package, so that another version fails here and not in a conversation."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
import torch
from moshi.models.compression import MimiModel
from moshi.models.lm import LMGen
from moshi.modules.streaming import State
from moshi.modules.transformer import RingKVCache
from moshi.utils.compile import no_compile, torch_compile_lazy

from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai.checkpoint import open_checkpoint
from rtc_server.models.kyutai.model import NO_TOKEN
from rtc_server.models.kyutai.wipe import RowWiper

ROWS = 3


def make(checkpoint: Path, out_of_sync: bool = True) -> tuple[MimiModel, LMGen]:
    found = open_checkpoint(str(checkpoint))
    lm = found.get_moshi("cpu", torch.float32)
    lm_gen = LMGen(lm, temp=0.0, temp_text=0.0, support_out_of_sync=out_of_sync)
    mimi = found.get_mimi("cpu")
    mimi.streaming_forever(ROWS)
    lm_gen.streaming_forever(ROWS)
    return mimi, lm_gen


def step(lm_gen: LMGen, code: int = 1) -> torch.Tensor | None:
    with no_compile():
        return lm_gen.step(torch.full((ROWS, 4, 1), code))


def test_the_version_is_the_one_that_was_read() -> None:
    assert importlib.metadata.version("moshi") == "0.2.13", "read the new source against this file, then change it"


def test_a_masked_row_gives_minus_two_and_the_others_tokens(moshi_checkpoint: Path) -> None:
    _, lm_gen = make(moshi_checkpoint)
    for _ in range(lm_gen.max_delay):
        early = step(lm_gen)
        assert early is not None
        assert (early == NO_TOKEN).all(), "a row has nothing until it is past max_delay"
    lm_gen.set_exec_mask(torch.tensor([True, False, True]))
    tokens = step(lm_gen)
    assert tokens is not None
    assert tokens.shape == (ROWS, 5, 1)
    assert (tokens[1] == lm_gen.lm_model.ungenerated_token_id).all()
    assert (tokens[[0, 2]] >= 0).all()


def test_only_out_of_sync_generation_survives_the_reset_of_one_row(moshi_checkpoint: Path) -> None:
    in_sync, out_of_sync = make(moshi_checkpoint, False)[1], make(moshi_checkpoint)[1]
    for lm_gen in (in_sync, out_of_sync):
        for _ in range(lm_gen.max_delay + 1):
            step(lm_gen)
        lm_gen.reset_streaming(torch.tensor([True, False, False]))
    assert step(in_sync) is None
    assert step(out_of_sync) is not None


def test_the_codes_of_a_row_s_first_step_have_no_effect(moshi_checkpoint: Path) -> None:
    one, other = make(moshi_checkpoint)[1], make(moshi_checkpoint)[1]
    step(one, code=1)
    step(other, code=9)
    for code in (2, 3, 4, 5, 6, 7):
        left, right = step(one, code), step(other, code)
        assert left is not None
        assert right is not None
        assert torch.equal(left, right)


def test_reset_sets_the_mask_of_a_row_true(moshi_checkpoint: Path) -> None:
    for module in make(moshi_checkpoint):
        module.set_exec_mask(torch.zeros(ROWS, dtype=torch.bool))
        module.reset_streaming(torch.tensor([False, True, False]))
        for state in module.get_streaming_state().values():
            assert state.exec_mask.tolist() == [False, True, False]


def test_the_model_inside_follows_reset_and_mask_but_hides_its_state(moshi_checkpoint: Path) -> None:
    _, lm_gen = make(moshi_checkpoint)
    assert set(lm_gen.get_streaming_state()) == {""}
    lm_gen.set_exec_mask(torch.tensor([True, False, True]))
    inside = lm_gen.lm_model.get_streaming_state()
    assert all(state.exec_mask.tolist() == [True, False, True] for state in inside.values())
    assert not any("depformer" in name for name in inside), "the depformer's state must last one step only"
    step(lm_gen)
    lm_gen.reset_streaming(torch.tensor([True, False, False]))
    assert inside["transformer"].offsets.tolist() == [0, 0, 1]


def test_reset_rewinds_but_leaves_the_attention_cache(moshi_checkpoint: Path) -> None:
    """The reason for ``wipe.py``. When this fails, the package wipes by itself."""
    _, lm_gen = make(moshi_checkpoint)
    step(lm_gen)
    lm_gen.reset_streaming()
    cache = lm_gen.lm_model.get_streaming_state()["transformer.layers.0.self_attn"].kv_cache
    assert isinstance(cache, RingKVCache)
    assert cache.end_offset.tolist() == [0] * ROWS
    assert cache.cache.shape[:2] == (2, ROWS), "keys and values, then the batch"
    assert cache.cache.abs().sum() > 0


def test_mimi_takes_exact_frames_and_no_token_of_minus_two(moshi_checkpoint: Path) -> None:
    mimi, _ = make(moshi_checkpoint)
    with torch.no_grad():
        assert mimi.encode(torch.zeros(ROWS, 1, 1920)).shape == (ROWS, 4, 1)
        with pytest.raises(RuntimeError, match="multiple of the frame size"):
            mimi.encode(torch.zeros(ROWS, 1, 1919))
        with pytest.raises(IndexError):
            mimi.decode(torch.full((ROWS, 4, 1), NO_TOKEN))


def test_mimi_s_encoder_and_decoder_share_one_mask(moshi_checkpoint: Path) -> None:
    mimi, _ = make(moshi_checkpoint)
    mimi.set_exec_mask(torch.tensor([True, False, True]))
    names = mimi.get_streaming_state()
    assert any(name.startswith("encoder") for name in names)
    assert any(name.startswith("decoder") for name in names)
    assert all(state.exec_mask.tolist() == [True, False, True] for state in names.values())


def test_a_batch_is_for_life(moshi_checkpoint: Path) -> None:
    mimi, lm_gen = make(moshi_checkpoint)
    for module in (mimi, lm_gen):
        with pytest.raises(AssertionError, match="already streaming"):
            module.streaming_forever(ROWS)


def test_no_compile_is_asked_at_the_time_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_TORCH_COMPILE", raising=False)
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    lazy = torch_compile_lazy(lambda: 7)
    with no_compile():
        assert lazy() == 7
    assert not compiled
    assert lazy() == 7
    assert compiled


class StateWith(State):
    """A streaming state of another version, with something in it that is not known."""

    def __init__(self, **fields: object) -> None:
        super().__init__(ROWS, torch.device("cpu"))
        vars(self).update(fields)


@pytest.mark.parametrize(
    "unknown",
    [torch.zeros(5, ROWS), torch.tensor([1.0, 2.0, 3.0]), [torch.zeros(ROWS)], torch.tensor(0.0)],
    ids=["batch elsewhere", "not blank when fresh", "in a list", "no batch"],
)
def test_a_state_that_cannot_be_wiped_stops_the_start(unknown: object) -> None:
    with pytest.raises(ModelLoadError, match=r"state\.thing"):
        RowWiper({"state": StateWith(thing=unknown)}, ROWS)


def test_wiping_finds_a_tensor_that_was_replaced() -> None:
    state = StateWith(thing=torch.full((ROWS, 2), -2.0))
    wiper = RowWiper({"state": state}, ROWS)
    state.thing = torch.ones(ROWS, 2)  # type: ignore[attr-defined]
    wiper.wipe([1])
    assert state.thing.tolist() == [[1, 1], [-2, -2], [1, 1]]  # type: ignore[attr-defined]
