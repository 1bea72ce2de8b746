"""Rows of a batch are conversations of their own: nothing passes between them, nor from one to the next."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rtc_server import bundled
from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.model import Example, ModelInfo, RowOutput, ServiceKind, StreamingModel
from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai.checkpoint import checkpoint_name, open_checkpoint
from rtc_server.models.kyutai.model import load
from rtc_server.models.kyutai.options import KyutaiOptions
from tests.support.kyutai_rows import greedy, noise, only, random_schedule, row_contents, tensors_in


def test_what_a_dialogue_model_says_of_itself(moshi_checkpoint: Path) -> None:
    model: StreamingModel = greedy(moshi_checkpoint, 2)
    expected = ModelInfo("tiny-moshi", ServiceKind.DIALOGUE, 2, "cpu", speaks=True, writes=True)
    assert model.info == dataclasses.replace(expected, row_format=model.info.row_format)
    assert model.info.row_format


def test_a_checkpoint_may_tell_of_itself(moshi_checkpoint: Path, tmp_path: Path) -> None:
    directory = tmp_path / "talkative"
    shutil.copytree(moshi_checkpoint, directory)
    examples = [{"topic": "Count", "say": ["count to ten", "stop"]}]
    about = {"notice": "It is small.", "hint": "make", "examples": examples, "languages": ["en", "fr"]}
    (directory / "about.json").write_text(json.dumps(about))
    info = greedy(directory, 1).info
    assert (info.name, info.notice, info.hint) == ("talkative", "It is small.", "make")
    assert info.examples == (Example("Count", ("count to ten", "stop")),)
    assert info.languages == ("en", "fr")


def test_the_bundled_model_is_known_by_its_name_alone(moshi_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever its files are; and it is a checkpoint like any other."""
    monkeypatch.setattr(bundled, "_DIRECTORIES", {"pico": moshi_checkpoint})
    assert checkpoint_name("pico") == "pico"
    info = load(KyutaiOptions("pico", 2, threads=1)).info
    expected = greedy(moshi_checkpoint, 2).info  # which chooses its tokens in another way
    assert info == dataclasses.replace(expected, name="pico", row_format=info.row_format)


def test_the_bundled_model_goes_before_a_directory_of_that_name(
    moshi_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pico").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundled, "_DIRECTORIES", {"pico": moshi_checkpoint})
    assert open_checkpoint("pico").moshi_weights == moshi_checkpoint / "model.safetensors"
    with pytest.raises(ModelLoadError, match=r"config\.json"):
        open_checkpoint("./pico")


def test_a_dialogue_model_speaks_once_its_delay_is_over(moshi_checkpoint: Path) -> None:
    model = greedy(moshi_checkpoint, 2)
    frames = noise(np.random.default_rng(0), 2)
    first = model.step(frames, only(2, 0))
    assert first == [RowOutput(), None]
    second = model.step(frames, only(2, 0))
    assert second[0] is not None
    assert second[0].pcm is not None
    assert (second[0].pcm.shape, second[0].pcm.dtype, second[0].pauses) == ((FRAME_SAMPLES,), np.float32, ())
    assert second[0].pcm.base is None, "a view keeps the other rows' audio alive"


def test_a_step_of_nobody_does_nothing(moshi_checkpoint: Path) -> None:
    model = greedy(moshi_checkpoint, 2)
    before = row_contents(model, 0)
    assert model.step(np.full((2, FRAME_SAMPLES), np.nan, np.float32), only(2)) == [None, None]
    assert all(np.array_equal(value, before[name]) for name, value in row_contents(model, 0).items())


@pytest.mark.parametrize("kind", ["moshi", "stt"])
def test_outputs_are_good_until_the_next_step_is_waited_for(request: pytest.FixtureRequest, kind: str) -> None:
    """So that they can be sent while a device computes that step."""
    checkpoint = request.getfixturevalue(f"{kind}_checkpoint")
    plain, apart = greedy(checkpoint, 2), greedy(checkpoint, 2)
    expected, got, before = [], [], None
    rng = np.random.default_rng(1)
    for number in range(12):
        pcm, active = noise(rng, 2), np.array([True, number % 3 > 0])
        expected.append(plain.step(pcm, active))
        launched = apart.launch(pcm, active)
        if before is not None:
            got.append(before.outputs())
        launched.wait()
        before = launched
    assert before is not None
    got.append(before.outputs())
    for outputs, others in zip(expected, got, strict=True):
        for output, other in zip(outputs, others, strict=True):
            assert (output is None) is (other is None)
            if output is not None and other is not None:
                assert (output.text, output.pauses, output.mark) == (other.text, other.pauses, other.mark)
                assert (output.pcm is None) is (other.pcm is None)
                if output.pcm is not None and other.pcm is not None:
                    assert np.array_equal(output.pcm, other.pcm)


def test_a_speech_to_text_model_writes_hears_pauses_and_is_silent(stt_checkpoint: Path) -> None:
    model = greedy(stt_checkpoint, 2)
    assert (model.info.kind, model.info.speaks, model.info.writes) == (ServiceKind.TRANSCRIBE, False, True)
    assert (model.info.prefix_s, model.info.delay_s) == (0.0, 0.48)
    conversations = random_schedule(model, steps=60, seed=0)
    assert any(conversation.text.strip() for conversation in conversations)
    for conversation in conversations:
        assert all(pcm is None for pcm in conversation.pcm)
        assert all(len(pauses) == 4 for pauses in conversation.pauses)
        assert all(0 < pause < 1 for pauses in conversation.pauses for pause in pauses)


def test_pauses_are_the_first_probability_of_each_head(stt_checkpoint: Path) -> None:
    """Heads that are certain of their first entry say 1, of another 0."""
    model = greedy(stt_checkpoint, 1)
    step = model._open.lm_gen.step_with_extra_heads

    def certain(codes: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        result = step(codes)
        assert result is not None
        heads = [torch.zeros(1, 1, 6) for _ in range(3)]
        for head, index in zip(heads, (0, 1, 5), strict=True):
            head[..., index] = 1.0
        return result[0], heads

    model._open.lm_gen.step_with_extra_heads = certain  # type: ignore[method-assign, assignment]
    output = model.step(np.zeros((1, FRAME_SAMPLES), np.float32), only(1, 0))[0]
    assert output is not None
    assert output.pauses == (1.0, 0.0, 0.0)


def test_a_translation_model_is_recognised(hibiki_checkpoint: Path) -> None:
    info = greedy(hibiki_checkpoint, 1).info
    assert (info.kind, info.speaks, info.writes) == (ServiceKind.TRANSLATE, True, True)


def test_context_can_be_made_smaller(moshi_checkpoint: Path) -> None:
    model = load(KyutaiOptions(str(moshi_checkpoint), slots=1, context=5, threads=1))
    capacities = {
        tensor.shape[3]
        for name, state in model.streaming_states.items()
        if name.startswith("lm.")
        for path, tensor in tensors_in(name, state)
        if path.endswith("kv_cache.cache")
    }
    assert capacities == {5}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_smaller_dtypes_run_on_a_cpu(moshi_checkpoint: Path, dtype: str) -> None:
    model = load(KyutaiOptions(str(moshi_checkpoint), 2, dtype=dtype, threads=1))  # type: ignore[arg-type]
    model.warm_up()
    conversations = random_schedule(model, steps=6, seed=0)
    assert all(np.isfinite(pcm).all() for c in conversations for pcm in c.pcm if pcm is not None)


def test_the_compiler_stays_out_of_a_cpu(moshi_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("torch.compile was called")

    monkeypatch.setattr(torch, "compile", refuse)
    greedy(moshi_checkpoint, 1).warm_up()


def test_close_twice_is_as_good_as_once(moshi_checkpoint: Path) -> None:
    model = greedy(moshi_checkpoint, 1)
    model.warm_up()
    model.close()
    model.close()
    assert model.info.slots == 1
    with pytest.raises(AssertionError, match="closed"):
        model.step(np.zeros((1, FRAME_SAMPLES), np.float32), only(1, 0))


@pytest.mark.slow
def test_the_engine_plane_has_no_web_server_and_the_package_no_torch() -> None:
    code = (
        "import sys, rtc_server.models.kyutai.text, rtc_server.engine.model\n"
        "assert 'torch' not in sys.modules\n"
        "import rtc_server.models.kyutai.model\n"
        "assert not {'aiohttp', 'aiortc', 'moshi.server'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
