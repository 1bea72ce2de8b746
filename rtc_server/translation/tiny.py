"""Writes a tiny random checkpoint of SeamlessM4T v2, in the format and by the classes of the transformers package.

What it says is noise and gibberish by construction: it was never trained. It exists so that tests, and people without
weights or an accelerator, can run the code that runs the real model.
"""

from __future__ import annotations

import argparse
import string
from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    GenerationConfig,
    SeamlessM4TFeatureExtractor,
    SeamlessM4TProcessor,
    SeamlessM4TTokenizer,
    SeamlessM4Tv2Config,
    SeamlessM4Tv2Model,
)

TEXT_LANGUAGES: Final = ("eng", "fra", "spa", "por", "ell")
VOICE_LANGUAGES: Final = TEXT_LANGUAGES[:4]
SPEAKERS: Final = 8
_SPECIAL: Final = ("<pad>", "<unk>", "<s>", "</s>")
_SPACE: Final = "▁"
_HIDDEN: Final = 32


def write_tiny_seamless(directory: Path, seed: int = 0) -> Path:
    """Write the checkpoint into ``directory``, which is made if absent, and return it. The same ``seed`` gives the same
    weights; torch's own random state is left alone."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SeamlessM4Tv2Model(_config(len(tokenizer)))
    model.generation_config = _generation_config(tokenizer)
    model.save_pretrained(directory)
    _processor(SeamlessM4TProcessor, SeamlessM4TFeatureExtractor, tokenizer).save_pretrained(directory)
    return directory


def _processor(processor: Any, extractor: Any, tokenizer: Any) -> Any:
    """Any: the package's classes are not typed."""
    return processor(feature_extractor=extractor(), tokenizer=tokenizer)


def _tokenizer() -> Any:
    letters = [*string.ascii_letters, *string.digits, *".,!?'-"]
    pieces = [_SPACE, *letters, *(_SPACE + letter for letter in string.ascii_lowercase)]
    vocabulary = {piece: number for number, piece in enumerate((*_SPECIAL, *pieces))}
    merges: list[Any] = [(_SPACE, letter) for letter in string.ascii_lowercase]
    return SeamlessM4TTokenizer(
        vocab=vocabulary,
        merges=merges,
        src_lang="eng",
        tgt_lang="fra",
        additional_special_tokens=[f"__{language}__" for language in TEXT_LANGUAGES],
    )


def _config(vocabulary: int) -> Any:
    layers: dict[str, Any] = {
        f"{part}_layers": 1 for part in ("encoder", "decoder", "speech_encoder", "t2u_encoder", "t2u_decoder")
    }
    heads: dict[str, Any] = {f"{part}_attention_heads": 2 for part in ("encoder", "decoder", "speech_encoder")}
    unit_heads: dict[str, Any] = {f"t2u_{part}_attention_heads": 2 for part in ("encoder", "decoder")}
    widths: dict[str, Any] = {
        f"{part}_ffn_dim": _HIDDEN for part in ("encoder", "decoder", "t2u_encoder", "t2u_decoder")
    }
    drops: dict[str, Any] = {f"{part}_layerdrop": 0.0 for part in ("encoder", "decoder", "speech_encoder")}
    return SeamlessM4Tv2Config(
        vocab_size=vocabulary,
        hidden_size=_HIDDEN,
        **layers,
        **heads,
        **unit_heads,
        **widths,
        **drops,
        speech_encoder_intermediate_size=_HIDDEN,
        t2u_vocab_size=64,
        char_vocab_size=vocabulary,
        unit_hifi_gan_vocab_size=64,
        t2u_variance_predictor_embed_dim=_HIDDEN,
        t2u_variance_predictor_hidden_dim=16,
        unit_embed_dim=16,
        spkr_embed_dim=8,
        lang_embed_dim=8,
        vocoder_num_langs=len(VOICE_LANGUAGES),
        vocoder_num_spkrs=SPEAKERS,
        vocoder_offset=0,  # that of the real one takes its four control symbols away, of which random units are some
        upsample_initial_channel=32,
        conv_depthwise_kernel_size=7,
        left_max_position_embeddings=8,
        right_max_position_embeddings=2,
        max_position_embeddings=512,
        t2u_max_position_embeddings=512,
    )


def _generation_config(tokenizer: Any) -> Any:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=3,
        max_new_tokens=24,
        text_decoder_lang_to_code_id={language: vocabulary[f"__{language}__"] for language in TEXT_LANGUAGES},
        t2u_lang_code_to_id={language: number for number, language in enumerate(VOICE_LANGUAGES)},
        vocoder_lang_code_to_id={language: number for number, language in enumerate(VOICE_LANGUAGES)},
        id_to_text={str(number): piece for piece, number in vocabulary.items()},
        char_to_id={piece: number for piece, number in vocabulary.items() if len(piece) == 1},
    )
    config._from_model_config = False  # else what transformers does not know itself is dropped when it is read
    return config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(write_tiny_seamless(arguments.directory, arguments.seed))


if __name__ == "__main__":
    main()
