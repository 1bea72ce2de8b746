"""Teaches the encoder of a finished checkpoint to hear people: what they say has to get the codes that the models know.

Its codebooks, its decoder and the language models stay as they are; so does the model's own voice. Three things pull.
What a person says has to be heard as its twin was before, the same by espeak-ng at the same times
(:mod:`training.twin`); and espeak-ng as it was. The model that transcribes, frozen, has to write the words, of which
its gradient reaches the encoder through codes that are chosen softly. And a small network, thrown away afterwards, has
to tell the phonemes from the codes. Owns this loss and this loop.
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

from lab.pico import phrases
from lab.speech import espeak
from lab.speech.spoken import SpeechError, Spoken
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from training import codec, language, manners, sounds, transcription, voices
from training.bank import Bank, Phrase
from training.checkpoint import load_codec, load_tokenizer, write_codec
from training.descent import descend, prefetched, rate_at, resume, save
from training.journal import Journal
from training.twin import twin

_NONE: Final = -1
"""The piece of a word that the model which transcribes does not know."""
_TALK: Final = 0.08
"""Of the clips, the share in which others talk in the background."""
_SILENT: Final = 0.05
_FRONT: Final = 4
"""Layers of the encoder that stay: 2 % of its weights, which are filters for any sound, and nine tenths of the time."""
_FRONT_HOP, _FRONT_SEES = 8, 16
"""Samples from one output of theirs to the next, and before an output, rounded up."""
_PIECE: Final = 2 * FRAME_SAMPLES


@dataclass(frozen=True, slots=True)
class Plan:
    """``steps`` of ``batch`` clips of ``frames`` each; in the first ``reader`` of them only the small network learns.
    ``people``: the share of clips in people's voices. The rest are weights of losses."""

    steps: int = 1500
    reader: int = 60
    batch: int = 16
    frames: int = 40
    rate: float = 2e-3
    people: float = 0.7
    phonemes: float = 0.4
    words: float = 1.0
    same: float = 2.0
    penalty: float = 0.1
    seed: int = 4


@dataclass(frozen=True, slots=True)
class Batch:
    """``heard``: [batch, 1, samples]; ``twins``: what it has to be heard as, of the same shape; ``twinned``: whether
    there is such, [batch]; ``slots``: phonemes, two a frame; ``said``: words by the frame in which they begin, else
    -1; ``known``: whether the voice is one that the encoder has learnt with."""

    heard: torch.Tensor
    twins: torch.Tensor
    twinned: torch.Tensor
    slots: torch.Tensor
    said: np.ndarray[Any, np.dtype[np.int64]]
    known: torch.Tensor


class Clips:
    """Batches of phrases, one after another, by one voice each."""

    def __init__(self, bank: Bank, plan: Plan, step: int) -> None:
        self._bank, self._plan = bank, plan
        self._random, self._numpy = random.Random(f"{plan.seed} {step}"), np.random.default_rng([plan.seed, step])
        self._words = {word: place for place, word in enumerate(phrases.vocabulary())}
        self._twins: dict[int, FloatArray | None] = {}

    def batch(self) -> Batch:
        made = [self._clip() for _ in range(self._plan.batch)]
        heard, twins, twinned, slots, said, known = zip(*made, strict=True)
        return Batch(
            torch.from_numpy(np.stack(heard))[:, None],
            torch.from_numpy(np.stack(twins))[:, None],
            torch.tensor(twinned),
            torch.from_numpy(np.stack(slots)),
            np.stack(said),
            torch.tensor(known),
        )

    def _clip(self) -> tuple[FloatArray, FloatArray, bool, np.ndarray[Any, Any], np.ndarray[Any, Any], bool]:
        frames = self._plan.frames
        pcm, as_twin = np.zeros((2, frames * FRAME_SAMPLES), dtype=np.float32)
        slots, said = np.zeros(2 * frames, dtype=np.int64), np.full(frames, -1, dtype=np.int64)
        known = not self._bank.voices or self._random.random() >= self._plan.people
        if self._random.random() < _SILENT:
            background = sounds.background(len(pcm), self._numpy, self._random.uniform(-70, -15))
            return background, background, True, slots, said, True
        name = "" if known else self._bank.voice(self._random)
        voice = voices.trained(self._random)
        twinned = True
        at = self._random.randrange(int(0.6 * MODEL_RATE_HZ))
        while at < len(pcm):
            if known:
                spoken = espeak.speak(self._text(), voice)
            else:
                spoken, other = self._phrase(name)
                twinned = twinned and other is not None
                _add(as_twin, spoken.pcm if other is None else other, at)
            _add(pcm, spoken.pcm, at)
            codec.label(slots, spoken, at)
            self._say(said, spoken, at)
            at += len(spoken.pcm) + int(self._random.uniform(0.1, 0.9) * MODEL_RATE_HZ)
        if self._bank.voices and self._random.random() < _TALK:
            pcm += self._talk(len(pcm))
        captured = sounds.captured(pcm, self._numpy)
        return captured, captured if known else as_twin, twinned, slots, said, known

    def _text(self) -> str:
        if self._random.random() < 0.3:
            return manners.strangely(self._random)
        text = self._random.choice(self._random.choice(phrases.questions()).trained())
        return manners.casually(text, self._random) if self._random.random() < manners.CASUAL else text

    def _phrase(self, name: str) -> tuple[Spoken, FloatArray | None]:
        """Something that ``name`` says, and its twin, unless espeak-ng says other words."""
        phrase = self._random.choice(self._bank.voices[name])
        size = phrase.size(self._random)
        spoken, other = phrase.sized(size), self._twin(phrase)
        return spoken, None if other is None else sounds.sized(other, size)[: len(spoken.pcm)]

    def _twin(self, phrase: Phrase) -> FloatArray | None:
        """Made once."""
        if id(phrase) not in self._twins:
            try:
                self._twins[id(phrase)] = twin(phrase.sized(1.0), phrase.text)
            except SpeechError:
                self._twins[id(phrase)] = None
        return self._twins[id(phrase)]

    def _talk(self, count: int) -> FloatArray:
        """Others, 15 to 30 dB below."""
        pcm = np.zeros(count, dtype=np.float32)
        for _ in range(3):
            spoken = self._random.choice(self._bank.voices[self._bank.voice(self._random)]).spoken(self._random)
            _add(pcm, spoken.pcm, self._random.randrange(count))
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

    def learning(self) -> nn.ModuleList:
        """What learns; the codebooks and the encoder's first layers do not."""
        self.mimi.requires_grad_(False)
        back: Any = self.mimi.encoder.model[_FRONT:]  # type: ignore[index]
        heard: Any = (back, self.mimi.encoder_transformer, self.mimi.downsample, self._first.input_proj)
        modules = nn.ModuleList([*heard, self.reader])
        return modules.requires_grad_(True)

    def losses(self, batch: Batch, plan: Plan, *, hears: bool) -> dict[str, torch.Tensor]:
        """``hears``: whether the encoder learns as well."""
        begun = _begun(self.mimi, torch.cat((batch.heard, batch.twins[~batch.known])))
        heard, twins = begun[: len(batch.heard)], begun[: len(batch.heard)].clone()
        twins[~batch.known] = begun[len(batch.heard) :]
        with torch.set_grad_enabled(hears):
            latents = self._first.input_proj(_framed(self.mimi, heard))  # [batch, dimension, frames]
        quantized, codes, chosen = self._quantize(latents)
        figures = dict(zip(("phonemes", "right"), self._told(latents, quantized, batch.slots), strict=True))
        if not hears:
            nothing = dict.fromkeys(("words", "wrote", "same", "apart", "penalty"), torch.zeros(()))
            return {"loss": figures["phonemes"], "right": figures["right"], **nothing}
        words, wrote = self._written(codes, chosen, batch.said)
        with torch.no_grad():
            wanted: torch.Tensor = self._hears_before(_framed(self._before, twins))
        size = wanted.pow(2).mean()
        apart = (latents - wanted).pow(2).mean((1, 2)) / size
        same, far = (apart[batch.known].mean(), apart[batch.twinned & ~batch.known].mean())
        moved = apart[batch.twinned].mean()
        penalty = (latents - quantized.detach()).pow(2).mean() / size
        loss = plan.phonemes * figures["phonemes"] + plan.words * words + plan.same * moved + plan.penalty * penalty
        found = {"right": figures["right"], "words": words, "wrote": wrote, "same": same, "apart": far}
        return {"loss": loss} | {name: value.detach() for name, value in (found | {"penalty": penalty}).items()}

    def _told(
        self, latents: torch.Tensor, quantized: torch.Tensor, slots: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        straight = latents + (quantized - latents).detach()
        loss: tuple[torch.Tensor, torch.Tensor] = self.reader.loss(self._first.output_proj(straight), slots)
        return loss

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


@torch.no_grad()
def _begun(mimi: MimiModel, pcm: torch.Tensor) -> torch.Tensor:
    """What the first layers make of ``pcm``, [batch, 1, samples]: piece by piece, which stays in the processor's
    cache."""
    front: Any = mimi.encoder.model[:_FRONT]  # type: ignore[index]
    made = []
    for first in range(0, pcm.shape[2], _PIECE):
        before = min(first, _FRONT_SEES)
        made.append(front(pcm[:, :, first - before : first + _PIECE])[:, :, before // _FRONT_HOP :])
    return torch.cat(made, dim=2)


def _framed(mimi: MimiModel, begun: torch.Tensor) -> torch.Tensor:
    """What the other layers make of it, before quantizing, [batch, width, frames]."""
    (latent,) = mimi.encoder_transformer(mimi.encoder.model[_FRONT:](begun))  # type: ignore[index,misc,operator]
    framed: torch.Tensor = mimi._to_framerate(latent)
    return framed


def _add(pcm: FloatArray, other: FloatArray, at: int) -> None:
    """``other`` into ``pcm`` from ``at`` on, as much as fits."""
    room = pcm[at : at + len(other)]
    room += other[: len(room)]


def train(directory: Path, checkpoint: Path, before: Path, out: Path, bank: Path, plan: Plan) -> MimiModel:
    """Adapt the codec of ``checkpoint``, beside which lies the model that transcribes, by ``plan``, and write it into
    ``out``; going on where ``directory`` says the last run was. The codec of ``before`` says how it has to hear: not
    the one that is adapted, for what each of several runs moves a little, all together would move far."""
    directory.mkdir(parents=True, exist_ok=True)
    path, journal = directory / "adapting.pt", Journal(directory / "adapting.csv")
    torch.manual_seed(plan.seed)
    with no_compile():
        writer, pieces = _writer(checkpoint.with_name(f"{checkpoint.name}-stt"))
        mimi = load_codec(checkpoint)
        adapting = Adapting(mimi, load_codec(before).requires_grad_(False), writer, pieces)
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
            if step % 50 == 0 or step == plan.steps:
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
