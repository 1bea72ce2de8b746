"""An encoder that adapts hears as the server does, and has for each clip what it should be heard as."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moshi.utils.compile import no_compile

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.bundled import PICO, directory_of
from tests.training.test_voices import few_phrases
from training import adapt
from training.adapt import Clips, Plan
from training.bank import Bank
from training.checkpoint import load_codec

PLAN = Plan(batch=12, frames=40)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return Clips(Bank(few_phrases(tmp_path_factory.mktemp("bank"))), PLAN, 0)


def test_each_clip_has_what_it_should_be_heard_as(clips: Clips) -> None:
    """espeak-ng's as they are; a person's clean, and in step with the person."""
    batch = clips.batch()
    assert batch.heard.shape == batch.twins.shape == (PLAN.batch, 1, PLAN.frames * FRAME_SAMPLES)
    assert batch.twinned.all()
    assert 0 < int(batch.known.sum()) < PLAN.batch
    assert torch.equal(batch.heard[batch.known], batch.twins[batch.known])
    for heard, other, slots in zip(
        batch.heard[~batch.known], batch.twins[~batch.known], batch.slots[~batch.known], strict=True
    ):
        assert not torch.equal(heard, other)
        loud = other[0].view(-1, FRAME_SAMPLES // 2).pow(2).mean(1) > 1e-4
        assert (loud == (slots > 0)).float().mean() > 0.75


def test_the_layers_in_pieces_hear_as_mimi_does(clips: Clips) -> None:
    heard = clips.batch().heard[:2]
    with no_compile(), torch.no_grad():
        mimi = load_codec(directory_of(PICO))
        whole = mimi._encode_to_unquantized_latent(heard)
        made = adapt._framed(mimi, adapt._begun(mimi, heard))
    assert torch.allclose(made, whole, atol=1e-3 * float(whole.abs().max()))


def test_only_what_hears_learns(clips: Clips) -> None:
    """Not the layers that are filters, the codebooks or the decoder."""
    with no_compile():
        checkpoint = directory_of(PICO)
        writer, pieces = adapt._writer(checkpoint.with_name("pico-stt"))
        mimi = load_codec(checkpoint)
        adapting = adapt.Adapting(mimi, load_codec(checkpoint).requires_grad_(False), writer, pieces)
        adapting.learning()
        figures = adapting.losses(clips.batch(), PLAN, hears=True)
        figures["loss"].backward()  # type: ignore[no-untyped-call]
    learnt = {name for name, parameter in mimi.named_parameters() if parameter.grad is not None}
    assert np.isfinite([float(value.detach()) for value in figures.values()]).all()
    assert {name.split(".")[0] for name in learnt} == {"encoder", "encoder_transformer", "downsample", "quantizer"}
    assert not any(name.startswith(("encoder.model.0.", "encoder.model.2.")) for name in learnt)
    assert all("input_proj" in name for name in learnt if name.startswith("quantizer."))
    assert all(parameter.grad is None for parameter in writer.parameters())
