"""What the small codec hears in training is what it hears in use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from moshi.models import loaders
from moshi.models.compression import MimiModel
from moshi.utils.compile import no_compile

from rtc_server.audio import FRAME_SAMPLES
from training import codec

FRAMES = 20


@pytest.fixture
@torch.no_grad()
def mimi() -> Iterator[MimiModel]:
    """Of random weights, and centroids that lie among what it hears."""
    torch.manual_seed(3)
    with no_compile():
        made = loaders.get_mimi(None, codec.config(), num_codebooks=codec.CODEBOOKS).eval()
        codec.balance(made.encoder, heard())
        size = codec.semantic_latents(made, heard()).std()
        for index, layer in enumerate(codec._quantizer(made).rvq_first.vq.layers):
            layer._codebook.embedding_sum.normal_(0.0, float(size) / 2**index)
            layer._codebook.cluster_usage.fill_(1.0)
        yield made


def heard() -> torch.Tensor:
    return torch.randn(2, 1, FRAMES * FRAME_SAMPLES, generator=torch.Generator().manual_seed(4)) * 0.1


@torch.no_grad()
def test_training_hears_as_the_server_does(mimi: MimiModel) -> None:
    """In bfloat16, torch 2.13 computes another convolution than the one that the server will compute."""
    in_use = mimi._encode_to_unquantized_latent(heard())
    in_training = codec._latent(mimi, heard())
    assert (in_training - in_use).norm() / in_use.norm() < 0.05


@torch.no_grad()
def test_pieces_of_a_sound_are_heard_as_the_whole(mimi: MimiModel) -> None:
    torch.testing.assert_close(codec.encoded(mimi, heard()), mimi._encode_to_unquantized_latent(heard()))


@torch.no_grad()
def test_latents_get_the_codes_that_mimi_gives(mimi: MimiModel) -> None:
    latents = codec.semantic_latents(mimi, heard())
    codes = codec.SemanticCodes(mimi).of(latents)
    assert codes.shape == (2, codec.SEMANTIC, FRAMES)
    assert torch.equal(codes, mimi.encode(heard())[:, : codec.SEMANTIC])


@torch.no_grad()
def test_moved_a_little_most_latents_keep_their_codes(mimi: MimiModel) -> None:
    latents = codec.semantic_latents(mimi, heard())
    hears = codec.SemanticCodes(mimi)
    codes, random = hears.of(latents), torch.Generator().manual_seed(5)
    noise = torch.randn(latents.shape, generator=random)
    kept = [float((hears.of(latents, noise * share) == codes).float().mean()) for share in (0.0, 0.05, 1.0)]
    assert kept[0] == 1.0
    assert kept[0] > kept[1] > kept[2]
