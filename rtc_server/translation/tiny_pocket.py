"""Writes a tiny random model of Pocket TTS, in the format and by the classes of its package, with two voices.

What it says is noise by construction: it was never trained.
"""

from __future__ import annotations

import argparse
import string
import wave
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.torch
import torch
import yaml
from pocket_tts import TTSModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from rtc_server.audio import MODEL_RATE_HZ, to_int16

_WIDTH: Final = 32
_LATENT: Final = 8
_LETTERS: Final = (*string.ascii_letters, *string.digits, *" .,!?'-")
_UNKNOWN: Final = "<unk>"
VOICES: Final = 2


def write_tiny_pocket(directory: Path, seed: int = 0) -> Path:
    """Write the model into ``directory``, which is made if absent, and return its configuration's file. The same
    ``seed`` gives the same weights; torch's own random state is left alone."""
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = {letter: number for number, letter in enumerate((_UNKNOWN, *_LETTERS))}
    tokenizer: Any = Tokenizer(WordLevel(vocabulary, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = Split("", "isolated")
    tokenizer.save(str(directory / "tokenizer.json"))
    file, weights = directory / "tiny.yaml", directory / "model.safetensors"
    config = _config(len(vocabulary), str(directory / "tokenizer.json"))
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = TTSModel.load_model(config=str(file))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    safetensors.torch.save_model(model, str(weights))
    file.write_text(yaml.safe_dump(config | {"weights_path": str(weights)}), encoding="utf-8")
    (directory / "voices").mkdir(exist_ok=True)
    for voice in range(VOICES):
        noise = np.random.default_rng([seed, voice]).standard_normal(MODEL_RATE_HZ).astype(np.float32)
        with wave.open(str(directory / "voices" / f"{voice}.wav"), "wb") as wav:
            wav.setparams((1, 2, MODEL_RATE_HZ, 0, "NONE", ""))
            wav.writeframes(to_int16(np.float32(0.1) * noise).tobytes())
    return file


def _config(vocabulary: int, tokenizer: str) -> dict[str, Any]:
    seanet = {
        "dimension": _WIDTH,
        "channels": 1,
        "n_filters": 4,
        "n_residual_layers": 1,
        "ratios": [6, 5, 4],
        "kernel_size": 7,
        "residual_kernel_size": 3,
        "last_kernel_size": 3,
        "dilation_base": 2,
        "pad_mode": "constant",
        "compress": 2,
    }
    transformer = {
        "d_model": _WIDTH,
        "num_heads": 2,
        "num_layers": 1,
        "layer_scale": 0.01,
        "context": 250,
        "dim_feedforward": _WIDTH,
        "input_dimension": _WIDTH,
        "output_dimensions": [_WIDTH],
    }
    return {
        "flow_lm": {
            "dtype": "float32",
            "insert_bos_before_voice": True,
            "flow": {"depth": 1, "dim": _WIDTH},
            "transformer": {"d_model": _WIDTH, "hidden_scale": 2, "max_period": 10000, "num_heads": 2, "num_layers": 1},
            "lookup_table": {
                "dim": _WIDTH,
                "n_bins": vocabulary,
                "tokenizer": "tokenizers",
                "tokenizer_path": tokenizer,
            },
        },
        "mimi": {
            "dtype": "float32",
            "sample_rate": MODEL_RATE_HZ,
            "inner_dim": _LATENT,
            "outer_dim": _WIDTH,
            "channels": 1,
            "frame_rate": 12.5,
            "seanet": seanet,
            "transformer": transformer,
            "quantizer": {"dimension": _LATENT, "output_dimension": _WIDTH},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(write_tiny_pocket(arguments.directory, arguments.seed))


if __name__ == "__main__":
    main()
