"""Trains the language model: a small Moshi with inner monologue, codebook delays and two audio streams.

Owns its sizes, its loss and its loop; the class is the moshi package's. A second small network, thrown away
afterwards, has to tell which word the person has just said: so the model learns to hear before it knows what
to answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from moshi.models import loaders
from moshi.models.lm import LMModel
from moshi.models.lm_utils import _delay_sequence
from moshi.utils.compile import no_compile
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lab.pico import own_voice, phrases
from training import codec, dataset
from training.checkpoint import load_codec, load_tokenizer, load_weights, write_language_model
from training.descent import descend, rate_at, resume, save
from training.journal import Journal
from training.precision import narrowed, narrowest

_OWN: Final = slice(1, 1 + codec.CODEBOOKS)
_DIM: Final = 256
_MOVED_BY: Final = 1.0
"""Of the error of quantizing: by how much at most what is heard is moved before it is quantized, each frame its own
way."""
_SHIFTED_BY: Final = 0.5
"""The same, by which all frames of a stretch are moved alike, as another speaker's would be."""
SPOILT_HEARD: Final = (0.03, 0.06, 0.1)
"""Of the person's codes, codebook by codebook, the share that is replaced by others."""
_SPOILT: Final = (0.0, *[0.03] * codec.CODEBOOKS, *SPOILT_HEARD)
_SPEAKS_BY: Final = 600
_SPOKEN_SHARE: Final = 0.4
_PADDING_WEIGHT: Final = 0.4
"""Of a frame in which there is nothing to write: they are many."""
_OWNING_WEIGHT: Final = 3.0
"""Of "sorry" where the answer would be wrong: it becomes the likeliest beginning from a chance of one in three or four
on."""
_APART: Final = 9
"""Frames from one word to the next of an answer, at most."""
_SOON: Final = 14
"""Frames: where the first word of a conversation has ended by then, its speaker did not wait."""
_FROM_THE_START: Final = 0.5
"""Of such conversations, the share that is learnt from the first frame on, for no other stretch has its like."""
_QUIET_SHARE: Final = 0.04
"""Of the frames in which the model speaks or is silent, those whose codes are learnt in a step: they repeat."""


def config(text_card: int) -> dict[str, Any]:
    """As Moshi's, narrow; of the person it gets the semantic codebooks alone."""
    semantic, acoustic = [0] * codec.SEMANTIC, [1] * (codec.CODEBOOKS - codec.SEMANTIC)
    return {
        "dim": _DIM,
        "text_card": text_card,
        "existing_text_padding_id": dataset.PADDING,
        "n_q": codec.CODEBOOKS + codec.SEMANTIC,
        "dep_q": codec.CODEBOOKS,
        "card": codec.CARD,
        "num_heads": 4,
        "num_layers": 4,
        "hidden_scale": 4,
        "causal": True,
        "layer_scale": None,
        "context": 250,
        "max_period": 10000,
        "gating": "silu",
        "norm": "rms_norm_f32",
        "positional_embedding": "rope",
        "depformer_dim": 128,
        "depformer_dim_feedforward": 192,
        "depformer_num_heads": 4,
        "depformer_num_layers": 2,
        "depformer_layer_scale": None,
        "depformer_multi_linear": True,
        "depformer_context": codec.CODEBOOKS,
        "depformer_max_period": 10000,
        "depformer_gating": "silu",
        "depformer_pos_emb": "none",
        "depformer_weights_per_step": True,
        "depformer_weights_per_step_schedule": [0, 1, 1, 1, 1, 1],
        "delays": [0, *semantic, *acoustic, *semantic],
    }


@dataclass(frozen=True, slots=True)
class Plan:
    """``steps`` of ``batch`` stretches of ``frames`` each. ``kept``: of what a model that goes on learning was, the
    share in what it becomes: a mean of both keeps more of what the first knew than it loses of what is new."""

    steps: int = 6700
    batch: int = 12
    frames: int = 288
    rate: float = 1.5e-3
    warm_up: int = 150
    seed: int = 2
    kept: float = 0.0


class PlainAttention(TorchFunctionMode):
    """Attention by plain products in few bits: on a CPU, and backwards, five times as fast as torch's own."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = (one.to(narrowest()).flatten(0, 1) for one in args[:3])
        mask = args[3][0, 0]  # every row of a batch begins with its first frame
        bias = torch.zeros(mask.shape, dtype=narrowest()).masked_fill(~mask, -1e4)
        scores = torch.baddbmm(bias, query * query.shape[-1] ** -0.5, key.transpose(1, 2))
        return (scores.softmax(-1) @ value).view(args[0].shape)


class WordReader(nn.Module):
    """Tells which word has just been heard."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.linear = nn.Linear(_DIM, words + 1)

    def loss(self, hidden: torch.Tensor, heard: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``hidden``: [batch, frames, dim]; ``heard``: [batch, frames], asked one frame later."""
        asked = functional.pad(heard, (1, 0), value=-1)[:, : hidden.shape[1]]
        there = asked >= 0
        logits = self.linear(hidden[there])
        return functional.cross_entropy(logits, asked[there]), (logits.argmax(-1) == asked[there]).float().mean()


@dataclass(frozen=True, slots=True)
class Batch:
    """``codes``: [batch, 1 + own + person codebooks, frames]; ``heard``: [batch, frames]."""

    codes: torch.Tensor
    heard: torch.Tensor


def losses(
    lm: LMModel,
    reader: WordReader,
    batch: Batch,
    silence: torch.Tensor,
    random: torch.Generator,
    *,
    speaks: bool = True,
    sorry: int | None = None,
) -> dict[str, torch.Tensor]:
    """The loss of a batch, and its parts. ``silence``: the own codes of a silent frame, [codebooks]; ``speaks``:
    whether to learn them this time. ``sorry``: the token with which the model begins to own up; None: it is not learnt
    when to."""
    initial = lm._get_initial_token().expand(len(batch.codes), -1, -1)
    sequence = torch.cat((initial, _delay_sequence(lm.delays, batch.codes, initial)), dim=2)
    wanted = sequence[:, :, 1:]
    with narrowed(), PlainAttention():
        hidden, text_logits = lm.forward_text(spoilt(sequence[:, :, :-1], _SPOILT, lm.card, random))
    text_loss, wrote = writing_loss(text_logits[:, 0], wanted[:, 0])
    word_loss, word_right = reader.loss(hidden.float(), batch.heard)
    figures = {
        "loss": text_loss + 0.3 * word_loss,
        "text": text_loss.detach(),
        "wrote": wrote,
        "words": word_right,
    }
    if sorry is not None:
        owning, wrong = owning_up_loss(text_logits[:, 0], wanted[:, 0], batch.heard, sorry)
        figures |= {"loss": figures["loss"] + owning, "owning": owning.detach(), "wrong": wrong}
    if speaks:
        audio, codes = _speech_loss(lm, wanted, hidden, silence, random)
        figures |= {"loss": figures["loss"] + audio, "audio": audio.detach(), "codes": codes}
    return figures


def writing_loss(logits: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of what to write, [batch, frames], and the share of it that is right: padding counts for less."""
    each = functional.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), reduction="none")
    writes, weights = (wanted != dataset.PADDING).flatten(), _weights(wanted).flatten()
    right = (logits.argmax(-1).flatten() == wanted.flatten())[writes].float().mean()
    return (each * weights).sum() / weights.sum(), right


def owning_up_loss(
    logits: torch.Tensor, wanted: torch.Tensor, heard: torch.Tensor, sorry: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What it costs to begin otherwise than with ``sorry`` an answer of which a word would be wrong, and the share of
    such answers. ``logits``: [batch, frames, card]; ``wanted`` and ``heard``: [batch, frames].

    What the model would say if it had to say something decides: an answer that it owns up to is not wrong for that, and
    goes on being learnt."""
    words = logits.detach().float().clone()
    words[..., : dataset.PADDING + 1] = words[..., sorry] = -torch.inf
    right = words.argmax(-1) == wanted
    begun = [one for one in _answers(wanted, heard) if wanted[one[0], one[1][0]] != sorry]
    wrong = [(row, frames[0]) for row, frames in begun if not right[row, frames].all()]
    share = torch.tensor(len(wrong) / max(1, len(begun)))
    if not wrong:
        return torch.zeros(()), share
    rows, firsts = zip(*wrong, strict=True)
    told = functional.cross_entropy(
        logits[list(rows), list(firsts)].float(), torch.full((len(rows),), sorry), reduction="sum"
    )
    return _OWNING_WEIGHT * told / _weights(wanted).sum(), share


def _answers(wanted: torch.Tensor, heard: torch.Tensor) -> Iterator[tuple[int, list[int]]]:
    """Each answer that begins in ``wanted``: its row, and the frames of its words. A person's word ends it, and what
    goes on after that, such as a count, begins nothing."""
    asked = (heard >= 0).cumsum(1)
    for row in range(len(wanted)):
        answer: list[int] = []
        before = -_APART - 1
        for frame in (wanted[row] > dataset.PADDING).nonzero()[:, 0].tolist():
            if answer and asked[row, frame] != asked[row, answer[0]]:
                yield row, answer
                answer = []
            if answer or frame - before > _APART:
                answer.append(frame)
            before = frame
        if answer:
            yield row, answer


def _weights(wanted: torch.Tensor) -> torch.Tensor:
    return torch.where(wanted != dataset.PADDING, 1.0, _PADDING_WEIGHT)


def _speech_loss(
    lm: LMModel, wanted: torch.Tensor, hidden: torch.Tensor, silence: torch.Tensor, random: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of the model's own codes in some of the frames, and the share that is right."""
    own = wanted[:, _OWN]
    speaks = (own != silence[None, :, None]).any(dim=1)
    chosen = torch.rand(speaks.shape, generator=random) < torch.where(speaks, _SPOKEN_SHARE, _QUIET_SHARE)
    own_wanted = own.transpose(1, 2)[chosen]  # [chosen, codebooks]
    with narrowed(), PlainAttention():
        logits = lm.forward_depformer_training(
            wanted.transpose(1, 2)[chosen].T[None].contiguous(), hidden[chosen][None].contiguous()
        )
    audio = functional.cross_entropy(
        logits[0].float().flatten(0, 1),
        own_wanted.T.flatten(),
        ignore_index=lm.card,  # the initial token of a delayed codebook
    )
    return audio, (logits[0].argmax(-1) == own_wanted.T).float().mean()


def spoilt(sequence: torch.Tensor, shares: Sequence[float], card: int, random: torch.Generator) -> torch.Tensor:
    """``shares`` of the codes of each stream replaced by others, so that no single one decides, and slips of its own
    do not derail the model."""
    hit = (torch.rand(sequence.shape, generator=random) < torch.tensor(shares)[None, :, None]) & (sequence < card)
    return torch.where(hit, torch.randint(0, card, sequence.shape, generator=random), sequence)


def train(
    directory: Path, checkpoint: Path, voice: Path, data: Path, plan: Plan, begin_with: Path | None = None
) -> LMModel:
    """Train by ``plan`` on what lies in ``data``, going on where ``directory`` says the last run was; write the
    language model into ``checkpoint``. ``voice``: whose codec gave the own voice its codes there. ``begin_with``: a
    checkpoint whose language model goes on learning."""
    directory.mkdir(parents=True, exist_ok=True)
    path, journal = directory / "language.pt", Journal(directory / "language.csv")
    made = config(load_tokenizer(checkpoint).piece_size())
    torch.manual_seed(plan.seed)
    with no_compile():
        lm = loaders.get_moshi_lm(None, made, dtype=torch.float32)
        lm.train()
        reader = WordReader(len(dataset.heard_words()))
        mimi = load_codec(checkpoint)
        if begin_with is None:
            _hear_from_the_start(lm, mimi)
        else:
            lm.load_state_dict(load_weights(begin_with))
        own = dataset.OwnCodes(load_codec(voice))
        silence = torch.from_numpy(own.silence[:, 0].astype(np.int64))
        sorry = dataset.pieces_of(load_tokenizer(checkpoint))[own_voice.part(phrases.NOT_UNDERSTOOD).words[0][1]]
        optimizer = optimizer_of(lm, reader, rate=plan.rate)
        step = resume(path, optimizer, lm=lm, reader=reader)
        random = torch.Generator().manual_seed(plan.seed + step)
        for batch in _batches(data, plan, step, codec.SemanticCodes(mimi)):
            if step >= plan.steps:
                break
            knows_its_voice = begin_with is not None or step >= _SPEAKS_BY
            speaks = not knows_its_voice or step % 5 == 0  # its one voice is learnt long before what to say
            owns_up = sorry if knows_its_voice else None
            made_losses = losses(lm, reader, batch, silence, random, speaks=speaks, sorry=owns_up)
            figures = descend(optimizer, made_losses, rate_at(step, plan.steps, plan.rate, plan.warm_up))
            step += 1
            journal.add(step, figures, last=step == plan.steps)
            if step % 100 == 0 or step == plan.steps:
                save(path, step, optimizer, lm=lm, reader=reader)
                _write(checkpoint, lm, made)
        if begin_with is not None and plan.kept:
            blend(lm, load_weights(begin_with), plan.kept)
            _write(checkpoint, lm, made)
    return lm.eval()


@torch.no_grad()
def blend(lm: LMModel, before: Mapping[str, torch.Tensor], kept: float) -> None:
    """Make ``lm`` the mean of what it is and of what it was ``before``, of which the share ``kept`` counts."""
    for name, weights in lm.state_dict().items():
        weights.lerp_(before[name].to(weights.dtype), kept)


def _write(checkpoint: Path, lm: LMModel, made: dict[str, Any]) -> None:
    write_language_model(checkpoint, lm, made, model_type="moshi")


@torch.no_grad()
def _hear_from_the_start(lm: LMModel, mimi: Any) -> None:
    """Begin with embeddings of the person's codes that lie as Mimi's centroids do: like sounds are alike."""
    layers = mimi.quantizer.rvq_first.vq.layers
    centroids = [layer._codebook.embedding for layer in layers]
    project = torch.randn(centroids[0].shape[1], _DIM) / math.sqrt(centroids[0].shape[1])
    scale = 0.5 / centroids[0].std()
    embeddings: Any = lm.emb
    for index, table in enumerate(centroids):
        embeddings[codec.CODEBOOKS + index].weight[: codec.CARD] = (table - table.mean(0)) @ project * scale * 0.2


def optimizer_of(*modules: nn.Module, rate: float) -> torch.optim.Optimizer:
    """AdamW; only matrices decay, and none that embeds."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in [named for module in modules for named in module.named_parameters()]:
        (rest if parameter.dim() < 2 or "emb" in name else matrices).append(parameter)
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)


def _batches(data: Path, plan: Plan, step: int, hears: codec.SemanticCodes) -> Iterator[Batch]:
    """Made when they are wanted: prefetched, their quantizing would fight with the step for the same processors."""
    recalls = _recalling_words()
    for chosen, random in dataset.drawn([data], dataset.Conversations, plan.batch, plan.seed, step):
        windows = [window(file, index, plan.frames, recalls, random) for file, index in chosen]
        written, latents, heard = (np.stack(some) for some in zip(*windows, strict=True))
        codes = torch.cat((torch.from_numpy(written), hears.of(*moved(latents, random))), dim=1)
        yield Batch(codes, torch.from_numpy(heard))


def moved(latents: np.ndarray[Any, Any], random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """``latents``, [batch, dimension, frames], and by how much to move them: each conversation by its own shares."""
    batch, dimension, _ = latents.shape
    noise = np.zeros(latents.shape, dtype=np.float32)
    for most, alike in ((_MOVED_BY, latents.shape), (_SHIFTED_BY, (batch, dimension, 1))):
        shares = random.uniform(0, most, (batch, 1, 1)).astype(np.float32)
        noise += random.standard_normal(alike, dtype=np.float32) * shares
    return torch.from_numpy(latents.astype(np.float32)), torch.from_numpy(noise)


def _recalling_words() -> list[int]:
    """Words that ask for something said before, of which the beginning of a window may know nothing."""
    words = dataset.heard_words()
    return [words[word] for word in ("go", "continue", "carry", "keep")]


def window(
    made: dataset.Conversations, index: int, frames: int, recalls: list[int], random: np.random.Generator
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Text and own codes, [streams, frames], latents, [dimension, frames], and heard words of a stretch that begins
    where no one speaks, and knows all it has to know."""
    own, heard = made.own[index], made.heard[index]
    loud = (own != own[:, :1]).any(axis=0)  # every conversation begins with a silent frame
    starts = [0]
    for start in range(1, len(heard) - frames + 1):
        quiet = not loud[start - 1 : start + 4].any() and (heard[max(0, start - 2) : start + _SOON] < 0).all()
        if quiet and not np.isin(heard[start:], recalls).any():
            starts.append(start)
    begins_soon = (heard[:_SOON] >= 0).any()
    start = 0 if begins_soon and random.random() < _FROM_THE_START else int(random.choice(starts))
    stretch = slice(start, start + frames)
    written = np.concatenate((made.text[index][None], own))[:, stretch].astype(np.int64)
    return written, made.person[index][:, stretch], heard[stretch].astype(np.int64)
