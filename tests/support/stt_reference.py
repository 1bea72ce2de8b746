"""What a plain loop over the moshi package makes of some audio: one stream, nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from moshi.models.lm import LMGen
from moshi.utils.compile import no_compile

from rtc_server.audio import FRAME_SAMPLES, FloatArray
from rtc_server.models.kyutai.checkpoint import open_checkpoint

FRAME_S = 0.08


@dataclass(frozen=True, slots=True)
class PlainWord:
    """``start_s``: where its first token stands, less the model's delay."""

    text: str
    start_s: float


@dataclass(frozen=True, slots=True)
class Plain:
    """``tokens``: the text token of each frame."""

    tokens: list[int]
    words: list[PlainWord]


def transcribe(checkpoint: Path, pcm: FloatArray, device: str = "cpu") -> Plain:
    """``pcm``: mono float32 at 24 kHz, whole frames, with whatever silence it should have before and behind it."""
    found = open_checkpoint(str(checkpoint))
    mimi, lm = found.get_mimi(device), found.get_moshi(device, torch.float32)
    tokenizer, delay_s = found.get_text_tokenizer(), float(found.stt_config["audio_delay_seconds"])
    generator = LMGen(lm, temp=0.0, temp_text=0.0)
    tokens: list[int] = []
    with torch.no_grad(), no_compile(), mimi.streaming(1), generator.streaming(1):
        for number, frame in enumerate(np.asarray(pcm).reshape(-1, FRAME_SAMPLES)):
            codes = mimi.encode(torch.from_numpy(frame.copy())[None, None])
            if number == 0:  # the first frame is not heard: the model puts its initial tokens there
                mimi.reset_streaming()
            made = generator.step(codes)
            tokens.append(3 if made is None else int(made[0, 0, 0]))
    return Plain(tokens, _words(tokens, tokenizer, delay_s))


def _words(tokens: list[int], tokenizer: object, delay_s: float) -> list[PlainWord]:
    words: list[PlainWord] = []
    run: list[int] = []
    for position, token in enumerate([*tokens, 0]):
        piece = "" if token in (0, 3) else tokenizer.id_to_piece(token)  # type: ignore[attr-defined]
        if run and (token in (0, 3) or piece.startswith("▁")):
            text = tokenizer.decode(run).strip()  # type: ignore[attr-defined]
            if text:
                words.append(PlainWord(text, max(0.0, (position - len(run)) * FRAME_S - delay_s)))
            run = []
        if piece:
            run.append(token)
    return words
