"""Writes tiny random checkpoints in the moshi package's own format.

What they say is noise and gibberish by construction: they were never trained. They exist so that tests, and
people without weights or an accelerator, can run the code that loads and steps the real models. Owns how
small a model can be and still have every part; knows nothing of how it is served.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
from pathlib import Path
from typing import Any, Final, Literal, get_args

import sentencepiece
import torch
from moshi.conditioners.base import ConditionAttributes
from moshi.models import loaders
from moshi.models.compression import MimiModel
from moshi.models.lm import LMModel
from moshi.utils.compile import no_compile
from safetensors.torch import save_file

Kind = Literal["moshi", "stt", "hibiki"]

_SENTENCES: Final = (
    "hello there how are you today",
    "i am well and i hope you are too",
    "what would you like to talk about",
    "the weather is lovely this morning",
    "please tell me more about your day",
    "we could go for a walk by the sea",
    "that sounds like a very good idea",
    "can you hear me when i speak now",
)
_CARD: Final = 16
"""Entries of each codebook, 2,048 in the real Mimi."""
_CODEBOOKS: Final = 4
_CONTEXT: Final = 16
"""Frames that attention looks back over: so few that a test of some seconds wraps the ring."""
_SPEECH_RMS: Final = 0.06
"""-24 dBFS, about as loud as speech, with room for peaks."""
_PADDING_ID: Final = 3
_PADDING_SHARE: Final = 0.75
"""Of the frames, those that write nothing: the rest comes to three words a second, a brisk talker."""
_NEVER: Final = -30.0
"""The text head's bias for bytes, letters and word fragments, so that a transcript shows whole words."""


def write_tiny_checkpoint(directory: Path, kind: Kind = "moshi", seed: int = 0) -> Path:
    """Write a random checkpoint into ``directory``, which is made if absent, and return it.

    ``kind``: ``moshi`` speaks and writes, ``stt`` writes and has four pause heads, ``hibiki`` is like ``moshi``
    with a condition. Its audio is a buzz at about -24 dBFS, its text common English words in no order.
    The same ``seed`` gives the same weights; torch's own random state is left alone.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _train_tokenizer()
    config = _lm_config(kind, _vocabulary_size(tokenizer))
    with torch.random.fork_rng(devices=[]), torch.no_grad(), no_compile():
        torch.manual_seed(seed)
        lm = _random_lm(config, tokenizer)
        mimi = _random_mimi(_mimi_config())
    (directory / "tokenizer.model").write_bytes(tokenizer)
    save_file(_contents(lm), directory / "model.safetensors")
    save_file(_contents(mimi), directory / "mimi.safetensors")
    _write_json(directory / "mimi.json", _mimi_config())
    _write_json(directory / "config.json", config | _file_names(kind))
    return directory


def _file_names(kind: Kind) -> dict[str, Any]:
    """The part of config.json that is not the language model's."""
    # As in the real configurations, but for the text of those that speak: at 0.7 it would not stop for breath.
    generation = {"temp": 0.0, "temp_text": 0.0} if kind == "stt" else {"temp": 0.8, "temp_text": 0.2}
    return {
        "model_type": kind,
        "moshi_name": "model.safetensors",
        "mimi_name": "mimi.safetensors",
        "mimi_config_name": "mimi.json",
        "tokenizer_name": "tokenizer.model",
        "lm_gen_config": generation,
        "stt_config": {"audio_silence_prefix_seconds": 0.0, "audio_delay_seconds": 0.48} if kind == "stt" else {},
    }


def _lm_config(kind: Kind, text_card: int) -> dict[str, Any]:
    shared: dict[str, Any] = {
        "card": _CARD,
        "text_card": text_card,
        "existing_text_padding_id": _PADDING_ID,
        "dim": 32,
        "num_heads": 2,
        "num_layers": 2,
        "hidden_scale": 4,
        "causal": True,
        "context": _CONTEXT,
        "max_period": 10000,
        "gating": "silu",
        "norm": "rms_norm_f32",
        "positional_embedding": "rope",
        "bias_proj": True,  # the real ones have none: here the text head's bias chooses what is written
        "depformer_dim": 16,
        "depformer_num_heads": 2,
        "depformer_num_layers": 1,
        "depformer_dim_feedforward": 64,
        "depformer_multi_linear": True,
        "depformer_pos_emb": "none",
        "depformer_weights_per_step": True,
    }
    if kind == "stt":
        heads = {"extra_heads_num_heads": 4, "extra_heads_dim": 6}
        return shared | heads | {"n_q": _CODEBOOKS, "dep_q": 0, "delays": [0] * (1 + _CODEBOOKS)}
    acoustic_delay = 2 if kind == "hibiki" else 1  # as in the real configurations
    codebook_delays = [0, *[acoustic_delay] * (_CODEBOOKS - 1)]
    duplex = {"n_q": 2 * _CODEBOOKS, "dep_q": _CODEBOOKS, "delays": [0, *codebook_delays, *codebook_delays]}
    return shared | duplex | (_conditions() if kind == "hibiki" else {})


def _conditions() -> dict[str, Any]:
    """As in the config.json of kyutai/hibiki-1b-pytorch-bf16."""
    words = ["very_bad", "bad", "neutral", "good", "very_good"]
    table = {"n_bins": len(words), "dim": 8, "tokenizer": "noop", "possible_values": words}
    return {
        "conditioners": {"description": {"type": "lut", "lut": table}},
        "fuser": {"sum": ["description"], "cross": [], "prepend": []},
    }


def _mimi_config() -> dict[str, Any]:
    """Mimi's own configuration with every width made small; rates and strides stay what they are."""
    width = 32
    config: dict[str, Any] = copy.deepcopy(loaders._mimi_config)
    config["seanet"] |= {"dimension": width, "n_filters": 4}
    config["quantizer"] |= {
        "dimension": 8,
        "n_q": _CODEBOOKS,
        "bins": _CARD,
        "input_dimension": width,
        "output_dimension": width,
    }
    config["transformer"] |= {
        "d_model": width,
        "num_heads": 2,
        "num_layers": 1,
        "dim_feedforward": 64,
        "context": _CONTEXT,
        "layer_scale": 0.3,  # 0.01 in the real one: too little for a test to notice a wrong cache
        "input_dimension": width,
        "output_dimensions": [width],
    }
    return config


def _train_tokenizer() -> bytes:
    """A SentencePiece model with every word of the sentences as a piece, and all 256 bytes to fall back on."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_SENTENCES * 8),
        model_writer=model,
        model_type="bpe",
        vocab_size=1000,  # more than there can be: every merge is made
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=_PADDING_ID,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _tokenizer(model: bytes) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    processor.load_from_serialized_proto(model)
    return processor


def _vocabulary_size(tokenizer: bytes) -> int:
    return int(_tokenizer(tokenizer).piece_size())


def _random_lm(config: dict[str, Any], tokenizer: bytes) -> LMModel:
    lm = loaders.get_moshi_lm(None, copy.deepcopy(config), dtype=torch.float32)
    processor = _tokenizer(tokenizer)
    words = {"\u2581" + word for sentence in _SENTENCES for word in sentence.split()}
    speakable = [token for token in range(processor.piece_size()) if processor.id_to_piece(token) in words]
    _make_talkative(lm, speakable)
    return lm


def _make_talkative(lm: LMModel, speakable: list[int]) -> None:
    """Set the text head's biases so that every word has its chance and padding its share.

    A random head would write the same few pieces for ever, most of them single bytes.
    """
    lm.text_linear.bias.fill_(_NEVER)
    logits = _sample_logits(lm, speakable) - _NEVER
    usual = logits.mean(dim=0)
    centred = logits - usual
    lead = centred[:, speakable].amax(dim=1) - centred[:, _PADDING_ID]
    lm.text_linear.bias[speakable] = -usual[speakable]
    lm.text_linear.bias[_PADDING_ID] = lead.quantile(_PADDING_SHARE) - usual[_PADDING_ID]


def _sample_logits(lm: LMModel, speakable: list[int], steps: int = 512) -> torch.Tensor:
    """The text head's logits, shape [steps, tokens], in a conversation of random codes and words."""
    audio = torch.randint(0, lm.card, (1, lm.n_q, steps))
    text = torch.tensor(speakable)[torch.randint(0, len(speakable), (1, 1, steps))]
    text[torch.rand(text.shape) < _PADDING_SHARE] = _PADDING_ID
    condition = None
    if lm.condition_provider is not None and lm.fuser is not None:
        wanted = ConditionAttributes(text={"description": "very_good"})
        condition = lm.fuser.get_sum(lm.condition_provider.prepare_and_provide([wanted]))
    _, logits = lm.forward_text(torch.cat([text, audio], dim=1), condition)
    return logits[0, 0]


def _random_mimi(config: dict[str, Any]) -> MimiModel:
    mimi = loaders.get_mimi(None, config, num_codebooks=_CODEBOOKS)
    for name, parameter in mimi.named_parameters():
        if name.endswith("conv.bias") or name.endswith("convtr.bias"):
            parameter.zero_()  # random biases drown the signal: every frame would sound like every other
    _fill_codebooks(mimi, config["sample_rate"])
    _set_loudness(mimi)
    return mimi


def _fill_codebooks(mimi: MimiModel, rate_hz: int) -> None:
    """Centroids drawn from what the encoder makes of noise that swells, so that input decides the codes."""
    seconds = 8
    swell = torch.linspace(-6.0, 0.0, seconds * rate_hz).exp()
    latent = mimi._encode_to_unquantized_latent((torch.randn(seconds * rate_hz) * swell)[None, None])
    quantizer: Any = mimi.quantizer
    for half in (quantizer.rvq_first, quantizer.rvq_rest):
        rest = half.input_proj(latent)[0].T  # [frames, dimension]
        for layer in half.vq.layers:
            codebook = layer._codebook
            centroids = rest[torch.randperm(len(rest))[: codebook.codebook_size]]
            codebook.embedding_sum.copy_(centroids)  # over a usage of one
            codebook._initialized.fill_(1.0)
            rest = rest - centroids[torch.cdist(rest, centroids).argmin(dim=-1)]


def _set_loudness(mimi: MimiModel) -> None:
    """Scale the decoder's last layer, which has no bias by now, so that random codes are as loud as speech."""
    mimi.set_num_codebooks(_CODEBOOKS)
    audio = mimi.decode(torch.randint(0, _CARD, (1, _CODEBOOKS, 100)))
    decoder: Any = mimi.decoder
    decoder.model[-1].conv.conv.weight.mul_(_SPEECH_RMS / audio.std())


def _contents(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in module.state_dict().items()}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rtc_server.models.tiny", description=__doc__)
    parser.add_argument("directory", type=Path, help="where to write the checkpoint")
    parser.add_argument("--kind", choices=get_args(Kind), default="moshi", help="default: moshi")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    arguments = parser.parse_args()
    print(write_tiny_checkpoint(arguments.directory, arguments.kind, arguments.seed))


if __name__ == "__main__":
    main()
