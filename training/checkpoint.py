"""The files of the checkpoint that comes out: the moshi package's own format, in bfloat16.

Owns names and types of the files. Knows no training.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any, Final

import sentencepiece
import torch
from moshi.models import loaders
from moshi.models.compression import MimiModel
from moshi.models.lm import LMModel
from safetensors.torch import load_file, save_file

from training import codec

_NAMES = {
    "moshi_name": "model.safetensors",
    "mimi_name": "mimi.safetensors",
    "mimi_config_name": "mimi.json",
    "tokenizer_name": "tokenizer.model",
}


PICO_VOICE: Final = Path(__file__).parent / "voice"
"""Pico's codec as it was when its decoder learnt to speak. The encoder of the one that is shipped has learnt more
since, and gives the own voice other codes."""
_GREEDY = {"temp": 0.0, "temp_text": 0.0, "use_sampling": False}


def write_codec(directory: Path, mimi: MimiModel) -> None:
    """Mimi's weights and configuration."""
    directory.mkdir(parents=True, exist_ok=True)
    state = mimi.state_dict()
    for name in [name for name in state if name.endswith("cluster_usage")]:
        centroids = state[name.replace("cluster_usage", "embedding_sum")]
        usage = state[name].clamp(min=1e-5)
        state[name.replace("cluster_usage", "embedding_sum")] = centroids / usage[:, None]  # over a usage of one
        state[name] = torch.ones_like(usage)
    save_file(_halved(state), directory / _NAMES["mimi_name"])
    _write_json(directory / _NAMES["mimi_config_name"], codec.config())


def load_codec(directory: Path) -> MimiModel:
    """As the server loads it: what it hears in training is what it hears in use."""
    config = json.loads((directory / _NAMES["mimi_config_name"]).read_text(encoding="utf-8"))
    return loaders.get_mimi(directory / _NAMES["mimi_name"], config, num_codebooks=codec.CODEBOOKS)


_SPEAKING = ("decoder", "upsample", "quantizer.rvq_rest", "quantizer.rvq_first.output_proj")
"""Of a codec, what makes sound of codes: it has no part in how they are made."""


def hearing_of(directory: Path) -> str:
    """A name for how the codec in ``directory`` hears, which changes when its encoder or its semantic codebooks do."""
    made = hashlib.sha256()
    for name, tensor in sorted(load_file(directory / _NAMES["mimi_name"]).items()):
        if not name.startswith(_SPEAKING):
            made.update(tensor.float().numpy().tobytes())
    return made.hexdigest()[:8]


def voice_of(checkpoint: Path) -> Path:
    """The checkpoint whose codec gave the model's own voice the codes that its decoder has learnt to speak from: Pico's
    before its encoder learnt more, where ``checkpoint`` speaks with that decoder, else ``checkpoint`` itself."""
    ours, theirs = (load_file(directory / _NAMES["mimi_name"]) for directory in (PICO_VOICE, checkpoint))
    speaking = [name for name in ours if name.startswith(_SPEAKING)]
    same = all(name in theirs and torch.equal(ours[name], theirs[name]) for name in speaking)
    return PICO_VOICE if same else checkpoint


def write_language_model(directory: Path, lm: LMModel, config: dict[str, Any], **extra: Any) -> None:
    """The language model's weights, and config.json: always the likeliest token, for chance adds nothing."""
    save_file(_halved(lm.state_dict()), directory / _NAMES["moshi_name"])
    _write_json(directory / "config.json", config | _NAMES | {"lm_gen_config": _GREEDY} | extra)


def load_weights(directory: Path) -> dict[str, torch.Tensor]:
    """Of the language model, in float32."""
    return {name: tensor.float() for name, tensor in load_file(directory / _NAMES["moshi_name"]).items()}


def codec_beside(path: str) -> dict[str, str]:
    """What config.json says of a codec that lies in another directory, at ``path`` from it."""
    return {name: f"{path}/{_NAMES[name]}" for name in ("mimi_name", "mimi_config_name")}


def write_tokenizer(directory: Path, sentences: list[str]) -> None:
    """A SentencePiece model in which every word of ``sentences`` is one piece."""
    directory.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences * 8),
        model_writer=model,
        model_type="word",
        vocab_size=4000,  # more than there are: every word is a piece
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        num_threads=1,
        minloglevel=2,
    )
    (directory / _NAMES["tokenizer_name"]).write_bytes(model.getvalue())


def load_tokenizer(directory: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(str(directory / _NAMES["tokenizer_name"]))


def _halved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: (tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in state.items()
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
