"""SeamlessM4T v2, by a tiny random checkpoint: what the package trips over does not get to it, and what does comes out
as by the package alone."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rtc_server.audio import FloatArray
from rtc_server.errors import ModelLoadError
from rtc_server.services import make_translator
from rtc_server.translation.checkpoint_options import CheckpointOptions
from rtc_server.translation.model import Translation, Utterance
from tests.support.missing import skip_but_in_ci
from tests.support.translators import running

if importlib.util.find_spec("transformers") is None:
    skip_but_in_ci("needs transformers")

import soxr
import torch
from transformers import AutoProcessor, SeamlessM4Tv2Model

from rtc_server.config import Settings
from rtc_server.metrics import Metrics
from rtc_server.translation import seamless
from rtc_server.translation.seamless import Seamless, load
from rtc_server.translation.tiny import write_tiny_seamless

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("offline")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_seamless(tmp_path_factory.mktemp("tiny") / "tiny-seamless")


@pytest.fixture(scope="module")
def model(tiny: Path) -> Seamless:
    loaded = load(CheckpointOptions(str(tiny), threads=1))
    loaded.warm_up()
    return loaded


def noise(seconds: float, seed: int = 0, scale: float = 0.1) -> FloatArray:
    generator = np.random.default_rng(seed)
    return (scale * generator.standard_normal(round(seconds * 24_000))).astype(np.float32)


def said(text: str, target: str = "pt", voice: int = 0, speak: bool = True) -> Utterance:
    return Utterance("en", target, text, voice=voice, speak=speak)


def heard(pcm: FloatArray, target: str = "pt", text: str = "", voice: int = 0, speak: bool = True) -> Utterance:
    return Utterance("en", target, text, pcm, voice, speak)


def translated(model: Seamless, *batch: Utterance) -> list[Translation]:
    outcomes = model.translate(batch)
    assert len(outcomes) == len(batch)
    return [outcome for outcome in outcomes if isinstance(outcome, Translation)]


def test_it_tells_what_the_checkpoint_can_do(model: Seamless) -> None:
    info = model.info
    assert info.name == "tiny-seamless"
    assert info.speaks == {"en", "fr", "es", "pt"}
    assert info.hears == {"en", "fr", "es", "pt", "el"}
    assert ("el", "pt") in info.pairs
    assert ("pt", "pt") not in info.pairs
    assert "non-commercial" in info.notice


@pytest.mark.parametrize("utterances", [[said("hello there")], [heard(noise(1.0))], [heard(noise(1.0), text="known")]])
def test_it_makes_what_the_package_makes(model: Seamless, tiny: Path, utterances: list[Utterance]) -> None:
    (made,) = translated(model, *utterances)
    (utterance,) = utterances
    plain, processor = SeamlessM4Tv2Model.from_pretrained(tiny).eval(), AutoProcessor.from_pretrained(tiny)
    if utterance.pcm is None:
        inputs = processor(text=[utterance.text], src_lang="eng", return_tensors="pt")
    else:
        pcm = soxr.resample(utterance.pcm, 24_000, 16_000)
        inputs = processor(audio=[pcm], sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        options = {f"text_{name}": value for name, value in seamless._TEXT.items()}
        out = plain.generate(**inputs, tgt_lang="por", return_intermediate_token_ids=True, **options)
    assert made.text == processor.batch_decode(out.sequences, skip_special_tokens=True)[0].strip()
    assert made.pcm is not None
    expected = soxr.resample(out.waveform[0][: int(out.waveform_lengths)].numpy(), 16_000, 24_000)
    np.testing.assert_allclose(made.pcm, np.clip(expected, -1, 1), atol=1e-4)


def test_a_batch_makes_what_each_makes_alone(model: Seamless) -> None:
    """Of all kinds at once, in several voices, some without any."""
    batch = [
        *(said("hello"), heard(noise(0.5)), said("good morning to all of you", voice=3), heard(noise(1.5, 1), voice=3)),
        *(said("x", speak=False), heard(noise(1.0, 2), speak=False), heard(noise(0.7, 3)), said("y " * 300)),
    ]
    together = translated(model, *batch)
    for made, utterance in zip(together, batch, strict=True):
        (alone,) = translated(model, utterance)
        assert (made.text, made.original) == (alone.text, alone.original)
        assert (made.pcm is None) == (alone.pcm is None) == (not utterance.speak)
        if made.pcm is not None and alone.pcm is not None:
            assert made.pcm.dtype == np.float32
            assert abs(len(made.pcm) - len(alone.pcm)) <= 480


def test_a_batch_is_heard_once(model: Seamless, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the translation, for what was said, and for the voice: also where only some are spoken."""
    calls = []
    hook = model._model.speech_encoder.encoder.register_forward_hook(lambda *_: calls.append(1))
    translated(model, heard(noise(1.0)), heard(noise(1.2), speak=False), heard(noise(0.9), voice=1))
    hook.remove()
    assert len(calls) == 1
    assert not model._model._heard


@pytest.mark.parametrize(
    "pcm",
    [noise(0), noise(0.01), noise(0.39), np.zeros(24_000, np.float32), noise(1.0, scale=1e-4)],
    ids=["empty", "10 ms", "too short", "silent", "nearly silent"],
)
def test_what_is_no_speech_is_nothing_said(model: Seamless, pcm: FloatArray) -> None:
    """Unless its words are known."""
    nothing, spoken = translated(model, heard(pcm), heard(noise(1.0)))
    assert nothing == Translation("", "", None)
    assert spoken.text
    (known,) = translated(model, heard(pcm, text="hello"))
    assert known.text
    assert known.original == "hello"


def test_an_empty_translation_is_not_spoken(model: Seamless, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seamless, "_TEXT", {"max_new_tokens": 1, "forced_eos_token_id": 3})
    for utterance in (said("hello"), heard(noise(1.0), text="hello")):
        assert translated(model, utterance) == [Translation("", "hello", None)]


def test_text_in_the_same_language_is_said_as_it_is(model: Seamless) -> None:
    (made,) = translated(model, said("Hello there, you!", target="en"))
    assert made.text == made.original == "Hello there, you!"
    assert made.pcm is not None


def test_sound_in_the_same_language_is_written_down(model: Seamless) -> None:
    (made,) = translated(model, heard(noise(1.0), target="en"))
    assert made.text
    assert made.text == made.original


def test_what_was_said_is_written_down_if_it_is_not_known(model: Seamless) -> None:
    unknown, known = translated(model, heard(noise(1.0)), heard(noise(1.0), text="known"))
    assert unknown.original
    assert unknown.original not in ("known", unknown.text)
    assert known.original == "known"


def test_a_language_without_a_voice_has_text_alone(model: Seamless) -> None:
    (made,) = translated(model, said("hello", target="el"))
    assert made.text
    assert made.pcm is None


@pytest.mark.parametrize("text", ["w" * 2000, "a b " * 500, "你好 🦜", "\x00\x1b", "<s></s>__por__<pad>", "-" * 50])
def test_hostile_texts_are_texts(model: Seamless, text: str) -> None:
    for target in ("pt", "en"):
        (made,) = translated(model, said(text, target=target))
        assert made.pcm is None or np.isfinite(made.pcm).all()


def test_another_kind_of_model_is_refused(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelLoadError, match="of the kind bert") as caught:
        load(CheckpointOptions(str(tmp_path)))
    assert "facebook/seamless-m4t-v2-large" in str(caught.value.hint)


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_checkpoint_that_lacks_a_file_says_so(tmp_path: Path, tiny: Path, broken: str) -> None:
    for file in tiny.iterdir():
        if file.name != broken:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelLoadError, match=f"{tmp_path.name} (cannot be loaded|lacks its tokenizer)"):
        load(CheckpointOptions(str(tmp_path)))


async def test_it_runs_in_a_process_of_its_own(tiny: Path) -> None:
    translator = make_translator(Settings(translate=str(tiny), device="cpu", threads=1), Metrics())
    assert translator is not None
    async with running(translator):
        made = await translator.translate(heard(noise(1.0)))
        assert made.text
        assert made.pcm is not None
        assert translator.info is not None
        assert translator.info.name == tiny.name


def test_the_program_writes_the_same_checkpoint_again(tiny: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rtc_server.translation.tiny", str(tmp_path / "again")]
    subprocess.run(command, check=True, capture_output=True, env=dict(os.environ))
    weights = [(directory / "model.safetensors").read_bytes() for directory in (tiny, tmp_path / "again")]
    assert weights[0] == weights[1]
