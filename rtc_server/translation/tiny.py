"""Writes a tiny random checkpoint of SeamlessM4T v2, of MADLAD-400 or of OPUS-MT, in the format and by the classes of
the transformers package.

What it says is noise and gibberish by construction: it was never trained. It exists so that tests, and people without
weights or an accelerator, can run the code that runs the real model.
"""

from __future__ import annotations

import argparse
import json
import shutil
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from sentencepiece import SentencePieceTrainer
from transformers import (
    GenerationConfig,
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
    SeamlessM4TFeatureExtractor,
    SeamlessM4TProcessor,
    SeamlessM4TTokenizer,
    SeamlessM4Tv2Config,
    SeamlessM4Tv2Model,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)

TEXT_LANGUAGES: Final = ("eng", "fra", "spa", "por", "ell")
VOICE_LANGUAGES: Final = TEXT_LANGUAGES[:4]
SPEAKERS: Final = 8
MADLAD_LANGUAGES: Final = ("en", "fr", "pt", "iw", "zh_Hant", "zh", "xx")
"""As MADLAD-400 names them; "xx" is none of ours."""
_SPECIAL: Final = ("<pad>", "<unk>", "<s>", "</s>")
_SPACE: Final = "▁"
_HIDDEN: Final = 32
_LETTERS: Final = (*string.ascii_letters, *string.digits, *".,!?'-")


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
    pieces = [_SPACE, *_LETTERS, *(_SPACE + letter for letter in string.ascii_lowercase)]
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


def write_tiny_madlad(directory: Path, seed: int = 0) -> Path:
    """As :func:`write_tiny_seamless`, of MADLAD-400: a T5 whose vocabulary has a mark for each language."""
    directory.mkdir(parents=True, exist_ok=True)
    letters = [*_SPACE, *_LETTERS, *(_SPACE + letter for letter in string.ascii_lowercase)]
    marks = [f"<2{language}>" for language in MADLAD_LANGUAGES]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((mark, 0.0) for mark in marks)]
    tokenizer = T5Tokenizer(vocab=[*pieces, *((letter, -2.0) for letter in letters)], extra_ids=0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=_HIDDEN,
        d_kv=16,
        d_ff=_HIDDEN,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    config.decoder_start_token_id = 0
    _save(T5ForConditionalGeneration, config, tokenizer, directory, seed)
    return directory


def write_tiny_opus(directory: Path, source: str, target: str, several: Sequence[str] = (), seed: int = 0) -> Path:
    """As :func:`write_tiny_seamless`, of OPUS-MT from ``source`` to ``target``, as its files name them; ``several``:
    the languages of which ``target`` is the name, with a mark in the vocabulary each."""
    directory.mkdir(parents=True, exist_ok=True)
    words = directory / "words.txt"
    words.write_text("\n".join(" ".join(_LETTERS[first:] + _LETTERS[:first]) for first in range(len(_LETTERS))))
    SentencePieceTrainer.train(
        input=str(words),
        model_prefix=str(directory / "source"),
        vocab_size=len(_LETTERS) + 4,
        model_type="char",
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    words.unlink()
    (directory / "source.vocab").unlink()
    (directory / "source.model").rename(directory / "source.spm")
    shutil.copy(directory / "source.spm", directory / "target.spm")
    marks = [f">>{language}<<" for language in several]
    vocabulary = {piece: number for number, piece in enumerate(("</s>", "<unk>", *marks, _SPACE, *_LETTERS, "<pad>"))}
    (directory / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = MarianTokenizer(
        source_spm=str(directory / "source.spm"),
        target_spm=str(directory / "target.spm"),
        vocab=str(directory / "vocab.json"),
        source_lang=source,
        target_lang=target,
    )
    config = MarianConfig(
        vocab_size=len(vocabulary),
        d_model=_HIDDEN,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=_HIDDEN,
        decoder_ffn_dim=_HIDDEN,
        max_position_embeddings=512,
        pad_token_id=vocabulary["<pad>"],
        eos_token_id=0,
        forced_eos_token_id=0,
        decoder_start_token_id=vocabulary["<pad>"],
    )
    _save(MarianMTModel, config, tokenizer, directory, seed)
    return directory


def _save(kind: Any, config: Any, tokenizer: Any, directory: Path, seed: int) -> None:
    """Any: the package's classes are not typed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
        for parameter in model.parameters():  # of what these classes begin with, all says nothing
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kind", choices=("seamless", "madlad", "opus"), default="seamless")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    match arguments.kind:
        case "seamless":
            print(write_tiny_seamless(arguments.directory, arguments.seed))
        case "madlad":
            print(write_tiny_madlad(arguments.directory, arguments.seed))
        case "opus":
            print(write_tiny_opus(arguments.directory, "en", "fr", seed=arguments.seed))


if __name__ == "__main__":
    main()
