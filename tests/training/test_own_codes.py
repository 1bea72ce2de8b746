"""The own voice has the codes that the language model says and the decoder speaks from, however much the encoder has
learnt since."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from moshi.models import loaders
from moshi.utils.compile import no_compile

from rtc_server.bundled import PICO, directory_of
from tests.training.test_voices import few_phrases
from training import codec, dataset, language
from training.checkpoint import PICO_VOICE, load_codec, load_tokenizer, load_weights, voice_of, write_codec


def test_picos_are_those_of_its_codec_from_before() -> None:
    assert voice_of(directory_of(PICO)) == PICO_VOICE


def test_another_decoder_has_a_voice_of_its_own(tmp_path: Path) -> None:
    with no_compile(), torch.no_grad():
        mimi = load_codec(PICO_VOICE)
        next(iter(mimi.decoder.parameters())).add_(1.0)
        write_codec(tmp_path, mimi)
    assert voice_of(tmp_path) == tmp_path


@pytest.fixture(scope="module")
def phrases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_phrases(tmp_path_factory.mktemp("bank"))


@pytest.mark.timeout(900)
def test_picos_language_model_knows_them(tmp_path: Path, phrases: Path) -> None:
    pico = directory_of(PICO)
    dataset.make_file(tmp_path, dataset.Sources(pico, voice_of(pico), phrases), 1, 8)
    with no_compile(), torch.no_grad():
        lm = loaders.get_moshi_lm(None, language.config(load_tokenizer(pico).piece_size()), dtype=torch.float32)
        lm.load_state_dict(load_weights(pico))
        silence = torch.from_numpy(dataset.OwnCodes(load_codec(voice_of(pico))).silence[:, 0].astype(np.int64))
        hears = codec.SemanticCodes(load_codec(pico))
        batch = next(language._batches(tmp_path, language.Plan(batch=8, frames=240), 0, hears))
        reader = language.WordReader(len(dataset.heard_words()))
        draws = [torch.Generator().manual_seed(seed) for seed in range(5)]  # each looks at some of the frames
        known = [float(language.losses(lm, reader, batch, silence, draw)["codes"]) for draw in draws]
    # 0.9 in a process of its own. espeak-ng's voices breathe a little differently after others have spoken: 0.55 and
    # more. Of the codes that its encoder would make now, 0.3.
    assert np.mean(known) > 0.45


def test_picos_encoder_would_make_others_now() -> None:
    with no_compile():
        known, now = (
            dataset.OwnCodes(load_codec(directory)).sequence([(0, "seven", 12)], 12)
            for directory in (PICO_VOICE, directory_of(PICO))
        )
    assert (known != now).mean() > 0.2
