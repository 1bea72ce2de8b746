"""Teaches the encoder of a finished checkpoint to hear people: what they say has to get the codes that the models know.

Its codebooks, its decoder and the language models stay as they are; so does the model's own voice. Three things pull:
a small network, thrown away afterwards, has to tell the phonemes from the codes; the model that transcribes, frozen,
has to write the words, of which its gradient reaches the encoder through codes that are chosen softly; and what
espeak-ng says has to be heard as before. Owns this loss and this loop.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from moshi.models import loaders
from moshi.models.compression import MimiModel
from moshi.models.lm import LMModel
from moshi.utils.compile import no_compile
from torch import nn

from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from training import codec, espeak, language, manners, phrases, sounds, transcription, voices
from training.bank import Bank
from training.checkpoint import load_codec, load_tokenizer, write_codec
from training.descent import descend, prefetched, rate_at, resume, save
from training.journal import Journal
from training.speech import Spoken

_NONE: Final = -1
"""The piece of a word that the model which transcribes does not know."""
_TALK: Final = 0.08
"""Of the clips, the share in which others talk in the background."""
_SILENT: Final = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """``steps`` of ``batch`` clips of ``frames`` each; in the first ``reader`` of them only the small network learns.
    ``people``: the share of clips in people's voices. The rest are weights of losses."""

    steps: int = 3000
    reader: int = 150
    batch: int = 10
    frames: int = 48
    rate: float = 6e-4
    people: float = 0.7
    words: float = 1.0
    same: float = 0.5
    penalty: float = 0.1
    seed: int = 4


@dataclass(frozen=True, slots=True)
class Batch:
    """``heard``: [batch, 1, samples]; ``slots``: phonemes, two a frame; ``said``: words by the frame in which they
    begin, else -1; ``known``: whether the voice is one that has to be heard as before."""

    heard: torch.Tensor
    slots: torch.Tensor
    said: np.ndarray[Any, np.dtype[np.int64]]
    known: torch.Tensor


class Clips:
    """Batches of phrases, one after another, by one voice each."""

    def __init__(self, bank: Bank, plan: Plan, step: int) -> None:
        self._bank, self._plan = bank, plan
        self._random, self._numpy = random.Random(f"{plan.seed} {step}"), np.random.default_rng([plan.seed, step])
        self._words = {word: place for place, word in enumerate(phrases.vocabulary())}
        self._names = list(bank.voices)

    def batch(self) -> Batch:
        made = [self._clip() for _ in range(self._plan.batch)]
        heard, slots, said, known = zip(*made, strict=True)
        return Batch(
            torch.from_numpy(np.stack(heard))[:, None],
            torch.from_numpy(np.stack(slots)),
            np.stack(said),
            torch.tensor(known),
        )

    def _clip(self) -> tuple[FloatArray, np.ndarray[Any, Any], np.ndarray[Any, Any], bool]:
        frames = self._plan.frames
        pcm = np.zeros(frames * FRAME_SAMPLES, dtype=np.float32)
        slots, said = np.zeros(2 * frames, dtype=np.int64), np.full(frames, -1, dtype=np.int64)
        known = not self._names or self._random.random() >= self._plan.people
        if self._random.random() < _SILENT:
            background = sounds.background(len(pcm), self._numpy, self._random.uniform(-70, -15))
            return background, slots, said, True
        name = "" if known else self._random.choice(self._names)
        voice = voices.trained(self._random)
        at = self._random.randrange(int(0.6 * MODEL_RATE_HZ))
        while at < len(pcm):
            spoken = espeak.speak(self._text(), voice) if known else self._phrase(name)
            room = pcm[at : at + len(spoken.pcm)]
            room += spoken.pcm[: len(room)]
            codec.label(slots, spoken, at)
            self._say(said, spoken, at)
            at += len(spoken.pcm) + int(self._random.uniform(0.1, 0.9) * MODEL_RATE_HZ)
        if self._names and self._random.random() < _TALK:
            pcm += self._talk(len(pcm))
        return sounds.captured(pcm, self._numpy), slots, said, known

    def _text(self) -> str:
        if self._random.random() < 0.3:
            return manners.strangely(self._random)
        text = self._random.choice(self._random.choice(phrases.questions()).trained())
        return manners.casually(text, self._random) if self._random.random() < manners.CASUAL else text

    def _phrase(self, name: str) -> Spoken:
        return self._random.choice(self._bank.voices[name]).spoken(self._random)

    def _talk(self, count: int) -> FloatArray:
        """Others, 15 to 30 dB below."""
        pcm = np.zeros(count, dtype=np.float32)
        for _ in range(3):
            spoken = self._phrase(self._random.choice(self._names)).pcm
            at = self._random.randrange(count)
            room = pcm[at : at + len(spoken)]
            room += spoken[: len(room)]
        return pcm * np.float32(10 ** (self._random.uniform(-30, -15) / 20))

    def _say(self, said: np.ndarray[Any, Any], spoken: Spoken, at: int) -> None:
        free = 0
        for begins_s, word in ((at_s, word.lower()) for at_s, word in spoken.words):
            if word not in self._words:
                continue  # and is not written
            frame = max(free, (at + round(begins_s * MODEL_RATE_HZ)) // FRAME_SAMPLES)
            if frame < len(said):
                said[frame] = self._words[word]
            free = frame + 1


class Adapting:
    """The loss. ``before``: the codec as it was; ``writer``: the model that transcribes, with the pieces of its
    words."""

    def __init__(self, mimi: MimiModel, before: MimiModel, writer: LMModel, pieces: np.ndarray[Any, Any]) -> None:
        self.mimi, self.reader = mimi, codec.PhonemeReader()
        self._before, self._writer, self._pieces = before, writer, pieces
        self._hears_before: Any = codec._quantizer(before).rvq_first.input_proj
        self._first: Any = codec._quantizer(mimi).rvq_first
        self._centroids = [layer._codebook.embedding.detach() for layer in self._first.vq.layers]
        self._size = sum(table.pow(2).mean() for table in self._centroids)

    def learning(self) -> nn.ModuleList:
        """What learns; the codebooks do not."""
        self.mimi.requires_grad_(False)
        heard: Any = (self.mimi.encoder, self.mimi.encoder_transformer, self.mimi.downsample, self._first.input_proj)
        modules = nn.ModuleList([*heard, self.reader])
        return modules.requires_grad_(True)

    def losses(self, batch: Batch, plan: Plan, *, hears: bool) -> dict[str, torch.Tensor]:
        """``hears``: whether the encoder learns as well."""
        with torch.set_grad_enabled(hears):
            latents = self._first.input_proj(_framed(self.mimi, batch.heard))  # [batch, dimension, frames]
        quantized, codes, chosen = self._quantize(latents)
        figures = dict(zip(("phonemes", "right"), self._told(latents, quantized, batch.slots), strict=True))
        if not hears:
            nothing = dict.fromkeys(("words", "wrote", "moved", "penalty"), torch.zeros(()))
            return {"loss": figures["phonemes"], "right": figures["right"], **nothing}
        words, wrote = self._written(codes, chosen, batch.said)
        moved, size = self._moved(latents[batch.known], batch.heard[batch.known])
        penalty = (latents - quantized.detach()).pow(2).mean() / size
        loss = figures["phonemes"] + plan.words * words + plan.same * moved + plan.penalty * penalty
        found = {"right": figures["right"], "words": words, "wrote": wrote, "moved": moved, "penalty": penalty}
        return {"loss": loss} | {name: value.detach() for name, value in found.items()}

    def _told(
        self, latents: torch.Tensor, quantized: torch.Tensor, slots: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        straight = latents + (quantized - latents).detach()
        loss: tuple[torch.Tensor, torch.Tensor] = self.reader.loss(self._first.output_proj(straight), slots)
        return loss

    def _moved(self, latents: torch.Tensor, heard: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """By how much ``latents`` have moved from what they were, as a share of their size; and that size."""
        if not len(heard):
            return latents.new_zeros(()), self._size
        with torch.no_grad():
            before: torch.Tensor = self._hears_before(_framed(self._before, heard))
            self._size = before.pow(2).mean()
        return (latents - before).pow(2).mean() / self._size, self._size

    def _quantize(self, latents: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        """What is left of ``latents``, the codes, [batch, frames] each, and how much each code is meant, [batch,
        frames, card] each."""
        left, codes, chosen = latents.transpose(1, 2), [], []
        whole = torch.zeros_like(left)
        for table in self._centroids:
            distance = (left.pow(2).sum(-1, keepdim=True) - 2 * left @ table.T) + table.pow(2).sum(-1)
            nearest = distance.argmin(-1)
            scale = distance.detach().gather(-1, nearest[..., None]).mean().clamp(min=1e-6)
            chosen.append((-distance / scale).softmax(-1))
            codes.append(nearest)
            whole = whole + table[nearest]
            left = left - table[nearest]
        return whole.transpose(1, 2), codes, chosen

    def _written(
        self, codes: Sequence[torch.Tensor], chosen: Sequence[torch.Tensor], said: np.ndarray[Any, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the model that transcribes makes of it."""
        lm = self._writer
        said = np.where((said >= 0) & (self._pieces[said] == _NONE), -1, said)
        wanted = torch.from_numpy(np.stack([transcription.text_of(one, self._pieces) for one in said]))
        initial = lm._get_initial_token().expand(len(said), -1, -1)
        given = lm.text_emb(torch.cat((initial[:, 0], wanted[:, :-1]), dim=1))
        embeddings: Any = lm.emb
        for index, (code, share) in enumerate(zip(codes, chosen, strict=True)):
            table = embeddings[index]
            soft = share @ table.weight[: codec.CARD]
            heard = soft + (table(code) - soft).detach()
            given = given + torch.cat((table(initial[:, 1 + index]), heard[:, :-1]), dim=1)
        hidden = lm.out_norm(lm.transformer(given))
        return language.writing_loss(lm.text_linear(hidden), wanted)


def _framed(mimi: MimiModel, pcm: torch.Tensor) -> torch.Tensor:
    """Before quantizing, [batch, width, frames]."""
    (latent,) = mimi.encoder_transformer(mimi.encoder(pcm))  # type: ignore[misc]
    framed: torch.Tensor = mimi._to_framerate(latent)
    return framed


def train(directory: Path, checkpoint: Path, out: Path, bank: Path, plan: Plan) -> MimiModel:
    """Adapt the codec of ``checkpoint``, beside which lies the model that transcribes, by ``plan``, and write it into
    ``out``; going on where ``directory`` says the last run was."""
    directory.mkdir(parents=True, exist_ok=True)
    path, journal = directory / "adapting.pt", Journal(directory / "adapting.csv")
    torch.manual_seed(plan.seed)
    with no_compile():
        writer, pieces = _writer(checkpoint.with_name(f"{checkpoint.name}-stt"))
        mimi, before = load_codec(checkpoint), load_codec(checkpoint)
        adapting = Adapting(mimi, before.requires_grad_(False), writer, pieces)
        learning = adapting.learning()
        optimizer = torch.optim.AdamW(learning.parameters(), lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.01)
        step = resume(path, optimizer, learning=learning)
        for batch in prefetched(Clips(Bank(bank), plan, step).batch):
            if step >= plan.steps:
                break
            hears = step >= plan.reader
            figures = adapting.losses(batch, plan, hears=hears)
            rate = rate_at(step - plan.reader, plan.steps - plan.reader, plan.rate, warm_up=100) if hears else 2e-3
            made = descend(optimizer, figures, rate)
            step += 1
            journal.add(step, made, last=step == plan.steps)
            if step % 100 == 0 or step == plan.steps:
                save(path, step, optimizer, learning=learning)
                write_codec(out, copy.deepcopy(mimi))
    return mimi.eval()


def _writer(directory: Path) -> tuple[LMModel, np.ndarray[Any, Any]]:
    """The model that transcribes, frozen, and the piece of each word of the vocabulary that it knows."""
    made = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(directory)
    names = transcription.config(tokenizer.piece_size())
    lm = loaders.get_moshi_lm(directory / made["moshi_name"], {name: made[name] for name in names}, dtype=torch.float32)
    pieces = np.array([ids[0] for ids in tokenizer.encode(phrases.vocabulary())])
    pieces[pieces == tokenizer.unk_id()] = _NONE
    return lm.requires_grad_(False), pieces
