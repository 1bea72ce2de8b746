"""Trains a small Mimi: hears any voice, speaks in one.

The encoder and its first codebooks learn what is said: from each of their frames, a small network that is
thrown away afterwards has to tell the phonemes of the last 200 ms, through noise, telephones and lost
packets. (The real Mimi's first codebook learns from WavLM for the same end.) The decoder learns the model's
own voice and no other (:mod:`training.polish`). Owns this loss and this loop; the classes are the moshi package's.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from moshi.models import loaders
from moshi.models.compression import MimiModel
from moshi.utils.compile import no_compile
from torch import nn
from torch.nn import functional

from lab.pico import own_voice, phrases
from lab.speech import espeak, phonemes
from lab.speech.spoken import Spoken
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray, from_int16
from training import sounds, voices
from training.bank import Bank
from training.descent import descend, prefetched, rate_at, save
from training.journal import Journal
from training.precision import narrowed

CODEBOOKS: Final = 6
SEMANTIC: Final = 3
CARD: Final = 512
_WIDTH: Final = 128
_SLOT: Final = FRAME_SAMPLES // 2
"""Phonemes are asked for every 40 ms."""
_SLOTS_ASKED: Final = range(-3, 2)
"""Which, counted from the first of a frame's own two."""
_PEOPLE: Final = 0.6
"""Of the phrases, the share in voices that were made from people's."""
_CLIP_FRAMES: Final = 26
_CLIP: Final = _CLIP_FRAMES * FRAME_SAMPLES
_PIECE: Final = 4 * FRAME_SAMPLES
_WAVE_WEIGHT: Final = 0.2
"""Of the samples themselves beside their spectra: which way a wave begins is hard to learn and cannot be heard."""
_FLOOR: Final = 3e-3
"""A magnitude of spectra that is next to silence."""


def config() -> dict[str, Any]:
    """Mimi's configuration, narrow: 24 kHz, 12.5 Hz, causal, as the real one."""
    made: dict[str, Any] = copy.deepcopy(loaders._mimi_config)
    made["seanet"] |= {"dimension": _WIDTH, "n_filters": 16, "n_residual_layers": 0, "ratios": [4, 5, 6, 8]}
    made["quantizer"] |= {
        "dimension": 64,
        "n_q": CODEBOOKS,
        "n_q_semantic": SEMANTIC,
        "bins": CARD,
        "q_dropout": False,
        "input_dimension": _WIDTH,
        "output_dimension": _WIDTH,
    }
    made["transformer"] |= {
        "d_model": _WIDTH,
        "num_heads": 4,
        "num_layers": 3,
        "dim_feedforward": 320,
        "context": 40,
        "layer_scale": 0.1,
        "input_dimension": _WIDTH,
        "output_dimensions": [_WIDTH],
    }
    return made


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps of ``batch`` clips of 2 s: ``listen`` without quantizing, ``quantize`` with, and ``polish``, in which
    the decoder learns (:mod:`training.polish`). ``thin``: of the own voice's parts, every so many-th is used."""

    listen: int = 1600
    quantize: int = 4900
    polish: int = 6300
    batch: int = 16
    utterances: int = 9000
    thin: int = 1
    rate: float = 2e-3
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Utterance:
    """``pcm``: int16 at 24 kHz. ``phonemes``: when each begins, in seconds, and which."""

    pcm: np.ndarray[Any, np.dtype[np.int16]]
    phonemes: tuple[tuple[float, str], ...]


class Clips:
    """Batches of clips: what was heard, and which phoneme is when."""

    def __init__(self, plan: Plan, step: int, bank: Bank) -> None:
        self._plan = plan
        self._utterances = spoken_by_many(plan.utterances, plan.seed)
        self._people = [phrase for some in bank.voices.values() for phrase in some]
        self._varied = random.Random(f"{plan.seed} {step}")
        self._random = np.random.default_rng([plan.seed, step])

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Heard, [batch, 1, samples], and phonemes, [batch, slots]."""
        made = [self._clip() for _ in range(self._plan.batch)]
        heard, slots = np.stack([pcm for pcm, _ in made]), np.stack([slot for _, slot in made])
        return torch.from_numpy(heard)[:, None], torch.from_numpy(slots)

    def _clip(self) -> tuple[FloatArray, np.ndarray[Any, Any]]:
        pcm = np.zeros(_CLIP, dtype=np.float32)
        slots = np.zeros(_CLIP // _SLOT, dtype=np.int64)
        if self._random.random() < 0.06:
            return sounds.background(_CLIP, self._random, self._random.uniform(-70, -15)), slots
        at = int(self._random.integers(-_CLIP // 3, _CLIP // 2))
        while at < _CLIP:
            one = self._spoken()
            _add(pcm, one.pcm, at)
            label(slots, one, at)
            at += len(one.pcm) + int(self._random.uniform(0.05, 0.6) * MODEL_RATE_HZ)
        return sounds.captured(pcm, self._random), slots

    def _spoken(self) -> Spoken:
        if self._people and self._random.random() < _PEOPLE:
            return self._varied.choice(self._people).spoken(self._varied)
        one = self._utterances[self._random.integers(len(self._utterances))]
        return Spoken(from_int16(one.pcm), (), one.phonemes)


def label(slots: np.ndarray[Any, Any], spoken: Spoken, at: int) -> None:
    """Write into ``slots`` which phoneme of ``spoken``, which begins with sample ``at``, is in the middle of each."""
    starts = np.array([start for start, _ in spoken.phonemes]) * MODEL_RATE_HZ
    centres = np.arange(len(slots)) * _SLOT + _SLOT // 2 - at
    for slot in np.flatnonzero((centres >= 0) & (centres < len(spoken.pcm))):
        place = max(0, int(np.searchsorted(starts, centres[slot], side="right")) - 1)
        slots[slot] = phonemes.NUMBERS[spoken.phonemes[place][1]]


def spoken_by_many(count: int, seed: int) -> list[Utterance]:
    """Questions and strange sentences in the voices of the training, clean."""
    share = math.ceil(count / 32)
    with get_context("spawn").Pool(2) as pool:
        made = pool.starmap(_speak_some, [(share, seed * 1000 + index) for index in range(32)])
    return [one for some in made for one in some]


def _speak_some(count: int, seed: int) -> list[Utterance]:
    random_ = random.Random(seed)
    made = []
    for _ in range(count):
        if random_.random() < 0.5:
            text = random_.choice(random_.choice(phrases.questions()).trained())
        else:
            text = phrases.strange(random_, held_out=False)
        spoken = espeak.speak(text, voices.trained(random_))
        made.append(Utterance((spoken.pcm * 32767).astype(np.int16), spoken.phonemes))
    return made


class Task(Protocol):
    """A stretch of the training, from step ``first`` to ``last``, at the learning rate ``rate``."""

    first: int
    last: int
    rate: float

    def parameters(self, trainee: Trainee) -> list[nn.Parameter]:
        """What learns; the rest is frozen."""

    def figures(self, trainee: Trainee, batch: Any) -> dict[str, torch.Tensor]:
        """``loss``, and what else is worth writing down."""


class PhonemeReader(nn.Module):
    """Tells the phonemes around a frame from its semantic codes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(_WIDTH, 256), nn.GELU(), nn.Linear(256, len(_SLOTS_ASKED) * phonemes.COUNT))

    def loss(self, latent: torch.Tensor, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross entropy, and the share that is right. ``latent``: [batch, width, frames]; ``slots``: two a frame."""
        logits = self.net(latent.transpose(1, 2)).unflatten(-1, (len(_SLOTS_ASKED), phonemes.COUNT))
        before, after = -_SLOTS_ASKED.start, _SLOTS_ASKED.stop
        padded = functional.pad(slots, (before, after), value=-1)
        asked = padded.unfold(1, len(_SLOTS_ASKED), 2)[:, : logits.shape[1]]
        right = (logits.argmax(-1) == asked)[asked > 0].float().mean()
        return functional.cross_entropy(logits.flatten(0, 2), asked.flatten(), ignore_index=-1), right


def spectral_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Distance of two sounds, [batch, samples], by their spectra at four resolutions."""
    total = made.new_zeros(())
    for size in (256, 512, 1024, 2048):
        window = torch.hann_window(size)
        a, b = (
            torch.stft(pcm, size, size // 4, window=window, normalized=True, return_complex=True).abs()
            for pcm in (made, wanted)
        )
        # Not the logarithm of the magnitudes alone: in silence its gradient has no bound.
        total = (
            total + ((a + _FLOOR).log() - (b + _FLOOR).log()).abs().mean() + (a - b).norm() / b.norm().clamp(min=1e-3)
        )
    return total


@dataclass
class Trainee:
    """What is being trained, and how far it is."""

    mimi: MimiModel
    reader: PhonemeReader
    step: int = 0


def train(directory: Path, plan: Plan, bank: Path) -> MimiModel:
    """Train by ``plan``, with what people's voices say in ``bank``, going on where ``directory`` says the last run
    was."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "codec.pt"
    torch.manual_seed(plan.seed)
    with no_compile():
        trainee = Trainee(loaders.get_mimi(None, config(), num_codebooks=CODEBOOKS), PhonemeReader())
        saved = torch.load(path, weights_only=True) if path.exists() else None
        if saved is not None:
            trainee.mimi.load_state_dict(saved["mimi"])
            trainee.reader.load_state_dict(saved["reader"])
            trainee.step = saved["step"]
        hearing = _Hearing(plan)
        if trainee.step < hearing.last:
            clips = Clips(plan, trainee.step, Bank(bank))
            if saved is None:
                balance(trainee.mimi.encoder, clips.batch()[0])
            learn(trainee, hearing, clips.batch, path, Journal(directory / "hearing.csv"), saved)
        _settle(trainee.mimi.eval(), plan.thin)
    return trainee.mimi.eval()


@torch.no_grad()
def balance(network: nn.Module, given: torch.Tensor) -> None:
    """Scale each convolution of ``network`` so that what it is ``given`` leaves it with a deviation of one.

    Without it the little that speech is drowns in the biases, and nothing is learnt for hundreds of steps
    (layer-sequential unit-variance initialization, Mishkin and Matas, 2016).
    """
    for convolution in [module for module in network.modules() if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)]:
        if convolution.bias is not None:
            convolution.bias.zero_()
        made: list[torch.Tensor] = []
        hook = convolution.register_forward_hook(lambda _module, _input, output, made=made: made.append(output))
        network(given)
        hook.remove()
        convolution.weight /= made[0].std().clamp(min=1e-6)


class _Hearing:
    """The encoder and the semantic codebooks learn to keep what is said."""

    def __init__(self, plan: Plan) -> None:
        self.first, self.last, self.rate = 0, plan.listen + plan.quantize, plan.rate
        self._quantize_from = plan.listen

    def parameters(self, trainee: Trainee) -> list[nn.Parameter]:
        mimi, quantizer = trainee.mimi, _quantizer(trainee.mimi)
        modules = (mimi.encoder, mimi.encoder_transformer, mimi.downsample, quantizer.rvq_first, trainee.reader)
        return [parameter for module in modules for parameter in module.parameters()]  # type: ignore[union-attr]

    def figures(self, trainee: Trainee, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        heard, slots = batch
        first = _quantizer(trainee.mimi).rvq_first.train()
        latent = _latent(trainee.mimi, heard)
        penalty = torch.zeros(())
        if trainee.step < self._quantize_from:
            semantic = first.output_proj(first.input_proj(latent))
        else:
            result = first(latent, trainee.mimi.frame_rate)
            semantic, penalty = result.x, result.penalty
        phonemes, right = trainee.reader.loss(semantic, slots)
        size = first.input_proj(latent).detach().pow(2).mean()
        return {"loss": phonemes + 0.5 * penalty, "right": right, "penalty": penalty.detach(), "size": size}


@torch.no_grad()
def _settle(mimi: MimiModel, thin: int) -> None:
    """Give the acoustic codebooks their centroids, from the model's own voice; nothing that hears changes.

    What is quantized are the principal components of the latents, so that every sound of the one voice has
    codes of its own. What the codes sound like is for the decoder to learn (:mod:`training.polish`).
    """
    pieces = []
    for text in own_voice.all_parts()[::thin]:
        for frames in {own_voice.part(text).frames, max(1, own_voice.part(text).frames // 2)}:
            pcm = own_voice.cut(own_voice.part(text).pcm, frames)
            padded = np.pad(pcm, (8 * FRAME_SAMPLES, 4 * FRAME_SAMPLES))
            pieces.append(mimi._encode_to_unquantized_latent(torch.from_numpy(padded)[None, None])[0])
    latents = torch.cat(pieces, dim=1)  # [width, frames]
    rest = _quantizer(mimi).rvq_rest
    directions = torch.linalg.svd(latents - latents.mean(dim=1, keepdim=True), full_matrices=False).U
    rest.input_proj.weight.copy_(directions[:, : rest.dimension].T[:, :, None])
    rest.output_proj.weight.copy_(directions[:, : rest.dimension][:, :, None])
    torch.manual_seed(0)
    rest.train()
    for _ in rest.vq.layers:  # each pass initializes one more
        rest(latents[None], mimi.frame_rate)
    rest.eval()
    coded = rest.vq.decode(rest.encode(latents[None]).transpose(0, 1))
    left = (rest.input_proj(latents[None]) - coded).pow(2).mean() / rest.input_proj(latents[None]).var()
    print(f"acoustic codebooks: {left:.2%} of the variance is lost", flush=True)


def speaking_losses(mimi: MimiModel, latent: torch.Tensor, wanted: torch.Tensor) -> dict[str, torch.Tensor]:
    """How far what the decoder makes of ``latent``, [batch, width, frames], is from ``wanted``, [batch, 1, samples]."""
    # In float32: torch 2.13 gets the gradients of transposed convolutions wrong in bfloat16 on a CPU.
    coded = mimi._to_encoder_framerate(latent)
    (coded,) = mimi.decoder_transformer(coded)  # type: ignore[misc]
    decoded = mimi.decoder(coded)[..., : wanted.shape[-1]]
    spectral = spectral_loss(decoded[:, 0], wanted[:, 0])
    wave = (decoded - wanted).pow(2).mean().sqrt() / wanted.pow(2).mean().sqrt()
    return {"loss": spectral + _WAVE_WEIGHT * wave, "spectral": spectral.detach(), "wave": wave.detach()}


def learn(
    trainee: Trainee,
    task: Task,
    make: Callable[[], Any],
    path: Path,
    journal: Journal,
    saved: dict[str, Any] | None,
) -> None:
    optimizer = torch.optim.AdamW(task.parameters(trainee), lr=task.rate, betas=(0.9, 0.98), weight_decay=0.01)
    if saved is not None and trainee.step > task.first:
        optimizer.load_state_dict(saved["optimizer"])
    for batch in prefetched(make):
        if trainee.step >= task.last:
            return
        rate = rate_at(trainee.step - task.first, task.last - task.first, task.rate, warm_up=100)
        figures = descend(optimizer, task.figures(trainee, batch), rate)
        trainee.step += 1
        journal.add(trainee.step, figures, last=trainee.step == task.last)
        if trainee.step % 200 == 0 or trainee.step == task.last:
            save(path, trainee.step, optimizer, mimi=trainee.mimi, reader=trainee.reader)


@torch.no_grad()
def encoded(mimi: MimiModel, pcm: torch.Tensor) -> torch.Tensor:
    """What Mimi makes of ``pcm``, [batch, 1, samples], before it quantizes: [batch, width, frames].

    The convolutions go through it in pieces that stay in the processor's cache: seven times as fast.
    """
    encoder: Any = mimi.encoder
    with encoder.streaming(len(pcm)):
        made = [encoder(piece) for piece in torch.split(pcm, _PIECE, dim=2)]
    (latent,) = mimi.encoder_transformer(torch.cat(made, dim=2))  # type: ignore[misc]
    framed: torch.Tensor = mimi._to_framerate(latent)
    return framed


@torch.no_grad()
def semantic_latents(mimi: MimiModel, pcm: torch.Tensor) -> torch.Tensor:
    """What the semantic codebooks quantize, [batch, dimension, frames], of ``pcm``, [batch, 1, samples]."""
    projected: torch.Tensor = _quantizer(mimi).rvq_first.input_proj(encoded(mimi, pcm))
    return projected


class SemanticCodes:
    """Quantizes latents as Mimi does, or nearly so: what lies between two centroids may get either's code."""

    def __init__(self, mimi: MimiModel) -> None:
        self._vq = _quantizer(mimi).rvq_first.vq

    @torch.no_grad()
    def of(self, latents: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Codes, [batch, codebooks, frames], of ``latents``, [batch, dimension, frames], each moved by ``noise``
        times the error of quantizing."""
        codes: torch.Tensor = self._vq.encode(latents)
        if noise is not None:
            error = (latents - self._vq.decode(codes)).pow(2).mean().sqrt()
            codes = self._vq.encode(latents + noise * error)
        return codes.transpose(0, 1)


def _quantizer(mimi: MimiModel) -> Any:
    """Typed loosely: what Mimi calls its quantizer is one with two halves."""
    return mimi.quantizer


def _latent(mimi: MimiModel, pcm: torch.Tensor) -> torch.Tensor:
    """Before quantizing, [batch, width, frames]."""
    # In float32: torch 2.13 leaves out half the taps of a strided convolution in bfloat16 on a CPU.
    latent = mimi.encoder(pcm)
    with narrowed():
        (latent,) = mimi.encoder_transformer(latent)  # type: ignore[misc]
        framed: torch.Tensor = mimi._to_framerate(latent)
    return framed.float()


def _add(pcm: FloatArray, other: FloatArray, at: int) -> None:
    """``other`` into ``pcm`` from ``at`` on, as much as fits."""
    first, last = max(0, at), min(len(pcm), at + len(other))
    if last > first:
        pcm[first:last] += other[first - at : last - at]
