"""Teaches the decoder what the model will really say: its parts, one after another, cut and whole.

The codes are those of :class:`training.dataset.OwnCodes`, so the decoder learns exactly what it will be given.
By now codes do not change any more: language models rely on them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from moshi.models.compression import MimiModel
from moshi.utils.compile import no_compile
from torch import nn

from lab.pico import own_voice
from training import codec
from training.checkpoint import load_codec, write_codec
from training.codec import Plan, Trainee
from training.dataset import OwnCodes
from training.journal import Journal

_CLIP_FRAMES: Final = 40
_LOUDNESS: Final = 0.05
"""RMS of speech at half scale."""

Clips = tuple[torch.Tensor, torch.Tensor]


class _Polishing:
    """The decoder learns."""

    first = 0

    def __init__(self, plan: Plan) -> None:
        self.last, self.rate = plan.polish, plan.rate / 2

    def parameters(self, trainee: Trainee) -> list[nn.Parameter]:
        mimi = trainee.mimi.requires_grad_(False)
        quantizer: Any = mimi.quantizer
        outlets = quantizer.rvq_first.output_proj, quantizer.rvq_rest.output_proj
        modules = (mimi.decoder, mimi.decoder_transformer, mimi.upsample, *outlets)
        for module in modules:
            module.requires_grad_(True)  # type: ignore[union-attr]
        return [parameter for module in modules for parameter in module.parameters()]  # type: ignore[union-attr]

    def figures(self, trainee: Trainee, batch: Clips) -> dict[str, torch.Tensor]:
        codes, wanted = batch
        return codec.speaking_losses(trainee.mimi, trainee.mimi.decode_latent(codes), wanted)


class _Clips:
    """Codes, [batch, codebooks, frames], and what they sound like, [batch, 1, samples]."""

    def __init__(self, mimi: MimiModel, plan: Plan, step: int) -> None:
        self._own = OwnCodes(mimi)
        self._parts = own_voice.all_parts()[:: plan.thin]
        self._own.prepare([(text, own_voice.part(text).frames) for text in self._parts])
        self._random = np.random.default_rng([plan.seed, step, 7])
        self._batch = plan.batch // 4

    def make(self) -> Clips:
        clips = [self._clip() for _ in range(self._batch)]
        codes, pcm = np.stack([codes for codes, _ in clips]), np.stack([pcm for _, pcm in clips])
        return torch.from_numpy(codes.astype(np.int64)), torch.from_numpy(pcm)[:, None]

    def _clip(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        uttered: list[tuple[int, str, int]] = []
        at = int(self._random.integers(0, 10))
        while at < _CLIP_FRAMES:
            text = self._parts[self._random.integers(len(self._parts))]
            frames = own_voice.part(text).frames
            if self._random.random() < 0.15:
                frames = int(self._random.integers(1, frames + 1))
            uttered.append((at, text, frames))
            at += frames + int(self._random.choice([0, 0, 1, 2, 5]))
        return self._own.sequence(uttered, _CLIP_FRAMES), own_voice.sequence(uttered, _CLIP_FRAMES)


@torch.no_grad()
def _begin(mimi: MimiModel, codes: torch.Tensor) -> None:
    """Put the untrained decoder where what it makes of ``codes`` is about as loud as speech."""
    decoder: Any = mimi.decoder
    latent = mimi._to_encoder_framerate(mimi.decode_latent(codes))
    upsample: Any = mimi.upsample
    upsample.convtr.convtr.convtr.weight /= latent.std()
    (latent,) = mimi.decoder_transformer(latent / latent.std())  # type: ignore[misc]
    codec.balance(decoder, latent)
    decoder.model[-1].conv.conv.weight *= _LOUDNESS


def train(directory: Path, checkpoint: Path, plan: Plan) -> MimiModel:
    """Train the decoder of the codec in ``checkpoint`` by ``plan`` and write it back."""
    path = directory / "polish.pt"
    torch.manual_seed(plan.seed)
    with no_compile():
        mimi = load_codec(checkpoint)
        trainee = Trainee(mimi, codec.PhonemeReader())
        saved = torch.load(path, weights_only=True) if path.exists() else None
        if saved is not None:
            mimi.load_state_dict(saved["mimi"])
            trainee.step = saved["step"]
        task = _Polishing(plan)
        if trainee.step < task.last:
            frozen = load_codec(checkpoint)  # its encoder is the same, and no other thread is at work in it
            clips = _Clips(frozen, plan, trainee.step)
            if saved is None:
                _begin(mimi, clips.make()[0])
            codec.learn(trainee, task, clips.make, path, Journal(directory / "polishing.csv"), saved)
        write_codec(checkpoint, mimi)
    return mimi.eval()
