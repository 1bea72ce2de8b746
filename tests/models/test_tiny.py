"""The tiny checkpoints: the same for a seed, loadable by the moshi package, audible, readable, driven by input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from moshi.models import loaders

from rtc_server.audio import FRAME_SAMPLES, level_dbfs
from rtc_server.models.kyutai.model import KyutaiModel, load
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.models.tiny import _SENTENCES, write_tiny_checkpoint

pytestmark = pytest.mark.slow

FRAMES_IN_4_S = 50


def listen(model: KyutaiModel, level: float, seed: int = 0) -> tuple[np.ndarray, str]:
    """Audio and text of four seconds in which the user makes noise of this level."""
    rng = np.random.default_rng(seed)
    audio, text = [], ""
    for _ in range(FRAMES_IN_4_S):
        frame = (level * rng.standard_normal((1, FRAME_SAMPLES))).astype(np.float32)
        output = model.step(frame, np.array([True]))[0]
        assert output is not None
        text += output.text
        if output.pcm is not None:
            audio.append(output.pcm)
    return np.concatenate(audio) if audio else np.zeros(0, np.float32), text


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_seed_decides_every_byte(tmp_path: Path) -> None:
    first = write_tiny_checkpoint(tmp_path / "a", seed=3)
    torch.manual_seed(99)
    again = write_tiny_checkpoint(tmp_path / "b", seed=3)
    other = write_tiny_checkpoint(tmp_path / "c", seed=4)
    assert contents(first) == contents(again)
    assert contents(first)["model.safetensors"] != contents(other)["model.safetensors"]
    assert contents(first)["mimi.safetensors"] != contents(other)["mimi.safetensors"]


def test_writing_leaves_torch_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    write_tiny_checkpoint(tmp_path / "model")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_audible_does_not_clip_and_says_words(tmp_path: Path, seed: int) -> None:
    directory = write_tiny_checkpoint(tmp_path / "model", seed=seed)
    audio, text = listen(load(KyutaiOptions(str(directory), slots=1, seed=seed, threads=1)), level=0.1)
    assert -40 < level_dbfs(audio) < -10
    assert np.abs(audio).max() < 1.0
    words = text.split()
    assert len(words) >= 2
    assert set(words) <= {word for sentence in _SENTENCES for word in sentence.split()}


def test_what_the_user_says_changes_what_it_says(moshi_checkpoint: Path) -> None:
    """Otherwise no test with it could notice audio that goes to the wrong row."""

    def answer(level: float) -> np.ndarray:
        model = load(KyutaiOptions(str(moshi_checkpoint), slots=1, temp=0.0, temp_text=0.0, threads=1))
        return listen(model, level)[0]

    assert np.array_equal(answer(0.1), answer(0.1))
    assert not np.array_equal(answer(0.1), answer(0.01))


def test_the_moshi_package_opens_its_files(moshi_checkpoint: Path) -> None:
    config = json.loads((moshi_checkpoint / "config.json").read_text())
    paths = [config[key] for key in ("moshi_name", "mimi_name", "tokenizer_name", "mimi_config_name")]
    assert all((moshi_checkpoint / path).is_file() for path in paths)
    mimi_config = json.loads((moshi_checkpoint / config["mimi_config_name"]).read_text())
    mimi = loaders.get_mimi(moshi_checkpoint / config["mimi_name"], mimi_config, num_codebooks=4)
    assert (mimi.sample_rate, mimi.frame_size) == (24_000, FRAME_SAMPLES)


def test_the_command_writes_and_names_the_directory(tmp_path: Path) -> None:
    target = tmp_path / "stt"
    command = [sys.executable, "-m", "rtc_server.models.tiny", str(target), "--kind", "stt", "--seed", "2"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(target)
    assert json.loads((target / "config.json").read_text())["model_type"] == "stt"
