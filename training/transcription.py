"""Trains the model that transcribes: words, each as long after it began as the longest of them lasts.

Owns its sizes, its delay and its loop; the class is the moshi package's, and so is the form: Kyutai's delayed streams,
with a boundary before each word. It hears through the codec that the language model speaks through, reads the same
conversations, and begins with what the language model knows of the person's speech.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import sentencepiece
import torch
from moshi.models import loaders
from moshi.models.lm import LMModel
from moshi.utils.compile import no_compile

from rtc_server.audio import FRAME_MS
from training import codec, dataset, language
from training.checkpoint import (
    codec_beside,
    load_codec,
    load_tokenizer,
    load_weights,
    write_language_model,
    write_tokenizer,
)
from training.descent import descend, rate_at, resume, save
from training.journal import Journal
from training.language import Plan
from training.precision import narrowed
from training.tongues import TONGUES
from training.voices import Language

DELAY: Final = 12
"""Frames from the beginning of a word until it is written."""
_NOT_HEARD: Final = 1
"""Frames at the beginning of a stream that a model does not hear; silence, then."""
_LONGEST: Final = 14
"""Frames that a word lasts at most."""
_BETWEEN: Final = 2
"""Frames of a word: its boundary, and itself."""


PLAN: Final = Plan(steps=2700, rate=1e-3, warm_up=100, seed=3)
ANOTHER_LANGUAGE: Final = Plan(steps=2000, batch=10, frames=160, rate=1e-3, warm_up=60, seed=4)
"""Of a model that has learnt to write one language, and learns to write another."""


def config(text_card: int) -> dict[str, Any]:
    """As the language model's, without a voice, and with a shorter memory."""
    made = language.config(text_card)
    mute = {"dep_q": 0, "depformer_weights_per_step_schedule": None}
    return made | mute | {"n_q": codec.SEMANTIC, "delays": [0] * (1 + codec.SEMANTIC), "context": 125}


def stage_of(into: Language) -> str:
    """What the files of a run are called that learns the language ``into``."""
    return "transcription" if into == "en" else f"transcription-{into}"


def text_of(said: np.ndarray[Any, Any], pieces: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What to write in each frame. ``said``: [frames], the word that begins there, else -1; ``pieces``: its token."""
    text = np.full(len(said), dataset.PADDING, dtype=np.int64)
    free = 0
    for begins in np.flatnonzero(said >= 0):
        at = max(int(begins) + 1 + DELAY, free)
        if at >= len(text):
            break
        text[at - 1], text[at] = dataset.BOUNDARY, pieces[said[begins]]
        free = at + _BETWEEN
    return text


def train(
    directory: Path,
    checkpoint: Path,
    out: Path,
    data: Sequence[Path],
    plan: Plan,
    begin_with: Path | None = None,
    into: Language = "en",
) -> LMModel:
    """Train by ``plan`` on what lies in ``data``, going on where ``directory`` says the last run was, into ``out``.
    ``checkpoint``: the language model's, whose codec is used where it lies. ``begin_with``: a model that transcribes
    and goes on learning. ``into``: the language that it learns to write."""
    name = stage_of(into)
    path, journal = directory / f"{name}.pt", Journal(directory / f"{name}.csv")
    words = list(TONGUES[into].vocabulary())
    write_tokenizer(out, [" ".join(words)])
    tokenizer = load_tokenizer(out)
    made = config(tokenizer.piece_size())
    torch.manual_seed(plan.seed)
    with no_compile():
        lm = loaders.get_moshi_lm(None, made, dtype=torch.float32)
        lm.train()
        hears = codec.SemanticCodes(load_codec(checkpoint))
        optimizer = language.optimizer_of(lm, rate=plan.rate)
        step = resume(path, optimizer, lm=lm)
        if not step and begin_with is None:
            _know_what_it_knows(lm, directory / "language.pt")
        elif not step and begin_with is not None:
            _go_on_from(lm, begin_with, tokenizer, words)
        random = torch.Generator().manual_seed(plan.seed + step)
        for codes in _batches(data, plan, step, hears, _pieces(tokenizer, words)):
            if step >= plan.steps:
                break
            figures = descend(optimizer, _losses(lm, codes, random), rate_at(step, plan.steps, plan.rate, plan.warm_up))
            step += 1
            journal.add(step, figures, last=step == plan.steps)
            if step % 100 == 0 or step == plan.steps:
                save(path, step, optimizer, lm=lm)
                _write(out, checkpoint, lm, made)
    return lm.eval()


def _write(out: Path, checkpoint: Path, lm: LMModel, made: dict[str, Any]) -> None:
    seconds = {"audio_silence_prefix_seconds": _NOT_HEARD, "audio_delay_seconds": DELAY}
    write_language_model(
        out,
        lm,
        made,
        **codec_beside(os.path.relpath(checkpoint, out)),
        model_type="stt",
        stt_config={name: frames * FRAME_MS / 1000 for name, frames in seconds.items()},
    )


def _pieces(tokenizer: sentencepiece.SentencePieceProcessor, words: list[str]) -> np.ndarray[Any, Any]:
    """The one token of each word."""
    made = tokenizer.encode(words)
    assert all(len(pieces) == 1 for pieces in made)
    return np.array(made)[:, 0]


@torch.no_grad()
def _know_what_it_knows(lm: LMModel, path: Path) -> None:
    """Take over what of the language model in ``path`` hears and understands; its words are others."""
    known = torch.load(path, weights_only=True)["lm"]
    heard: dict[str, torch.Tensor] = {}
    for index in range(codec.SEMANTIC):
        theirs, ours = f"emb.{codec.CODEBOOKS + index}.", f"emb.{index}."
        heard |= {name.replace(theirs, ours): known[name] for name in known if name.startswith(theirs)}
    understood = {name: tensor for name, tensor in known.items() if name.startswith(("transformer.", "out_norm."))}
    missing, unexpected = lm.load_state_dict(understood | heard, strict=False)
    assert not unexpected
    assert all(name.startswith("text_") for name in missing), missing


@torch.no_grad()
def _go_on_from(
    lm: LMModel, directory: Path, tokenizer: sentencepiece.SentencePieceProcessor, words: list[str]
) -> None:
    """Take over all of the model in ``directory``; a word that it does not know begins as the mean of the others."""
    theirs, before = load_tokenizer(directory), load_weights(directory)
    for name in ("text_emb.weight", "text_linear.weight"):
        old = before[name]
        new = old.mean(0).repeat(len(lm.state_dict()[name]), 1)
        new[: dataset.PADDING + 1], new[-1] = old[: dataset.PADDING + 1], old[-1]  # the last: what a stream begins with
        for word in words:
            if len(theirs.encode(word)) == 1 and theirs.encode(word)[0] != theirs.unk_id():
                new[tokenizer.encode(word)[0]] = old[theirs.encode(word)[0]]
        before[name] = new
    lm.load_state_dict(before)


def _losses(lm: LMModel, codes: torch.Tensor, random: torch.Generator) -> dict[str, torch.Tensor]:
    """``codes``: [batch, 1 + heard codebooks, frames]."""
    initial = lm._get_initial_token().expand(len(codes), -1, -1)
    before = torch.cat((initial, codes[:, :, :-1]), dim=2)
    with narrowed(), language.PlainAttention():
        _, logits = lm.forward_text(language.spoilt(before, (0.0, *language.SPOILT_HEARD), lm.card, random))
    loss, wrote = language.writing_loss(logits[:, 0], codes[:, 0])
    return {"loss": loss, "wrote": wrote}


def _batches(
    data: Sequence[Path], plan: Plan, step: int, hears: codec.SemanticCodes, pieces: np.ndarray[Any, Any]
) -> Iterator[torch.Tensor]:
    for chosen, random in dataset.drawn(data, dataset.Readings, plan.batch, plan.seed, step):
        windows = [_window(file, index, plan.frames, pieces, random) for file, index in chosen]
        written, latents = (np.stack(some) for some in zip(*windows, strict=True))
        yield torch.cat((torch.from_numpy(written)[:, None], hears.of(*language.moved(latents, random))), dim=1)


def _window(
    made: dataset.Readings, index: int, frames: int, pieces: np.ndarray[Any, Any], random: np.random.Generator
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Text, [frames], and latents, [dimension, frames], of a stretch before which nothing is left to be written."""
    said = made.said[index]
    begun = np.concatenate(([0], np.cumsum(said >= 0)))
    starts = np.arange(1, len(said) - frames + 1)
    quiet = starts[begun[starts] == begun[np.maximum(0, starts - DELAY - _LONGEST)]]
    start = int(random.choice([0, *quiet]))
    stretch = slice(start, start + frames)
    return text_of(said, pieces)[stretch], made.person[index][:, stretch]
