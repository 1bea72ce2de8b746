"""The recipe runs from one command, and what comes out is a checkpoint that the server loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.bundled import PICO, directory_of
from rtc_server.engine.model import ServiceKind
from rtc_server.models.kyutai import model as kyutai
from rtc_server.models.kyutai.options import KyutaiOptions
from tests.conftest import need_commands
from training.checkpoint import hearing_of, load_codec


def rehearse(directory: Path, *arguments: str) -> str:
    command = [
        sys.executable,
        "-m",
        "training",
        "--rehearse",
        "--directory",
        str(directory),
        "--out",
        str(directory / "out"),
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(1300)
def test_a_rehearsal_of_all_stages_makes_a_checkpoint(tmp_path: Path) -> None:
    need_commands("espeak-ng", "flite")
    first = rehearse(tmp_path)
    assert [line for line in first.splitlines() if line.startswith("==")] == [
        f"== {stage}" for stage in ("voices", "codec", "data", "language", "polish", "transcription", "plots")
    ]
    assert (tmp_path / "losses.png").stat().st_size > 1000
    assert {path.stem for path in tmp_path.glob("*.pt")} == {"codec", "language", "polish", "transcription"}
    for name, kind in (("out", ServiceKind.DIALOGUE), ("out-stt", ServiceKind.TRANSCRIBE)):
        model = kyutai.load(KyutaiOptions(model=str(tmp_path / name), slots=2))
        assert model.info.kind is kind
        (output, _) = model.step(np.zeros((2, FRAME_SAMPLES), dtype=np.float32), np.array([True, True]))
        assert output is not None
        model.close()

    # Interrupted after its last step and run again, it has nothing left to do: the weights stay what they are.
    before = load_codec(tmp_path / "out").state_dict()
    written = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    rehearse(tmp_path)
    after = load_codec(tmp_path / "out").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.timeout(900)
def test_a_rehearsal_of_another_language_makes_one_more_model_that_transcribes(tmp_path: Path) -> None:
    need_commands("espeak-ng")
    stages = [line for line in rehearse(tmp_path, "--language", "pt").splitlines() if line.startswith("==")]
    assert stages == ["== data", "== transcription", "== plots"]
    assert {path.name for path in tmp_path.glob("out*")} == {"out-stt-pt"}
    model = kyutai.load(KyutaiOptions(model=str(tmp_path / "out-stt-pt"), slots=2))
    assert model.info.kind is ServiceKind.TRANSCRIBE
    model.step(np.zeros((2, FRAME_SAMPLES), dtype=np.float32), np.array([True, True]))
    model.close()


@pytest.mark.timeout(900)
def test_a_rehearsal_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    """What hears and what writes has learnt more; the decoder and the codebooks, and so its voice, stay."""
    need_commands("espeak-ng", "flite")
    rehearse(tmp_path, "--begin-with", str(directory_of(PICO)))
    before, after = (load_codec(path).state_dict() for path in (directory_of(PICO), tmp_path / "out"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("encoder.") for name in changed)
    assert all(name.startswith(("encoder", "downsample", "quantizer.rvq_first.input_proj")) for name in changed)
    (data,) = tmp_path.glob("data-*")  # of the encoder as it has become
    assert data.name == f"data-{hearing_of(tmp_path / 'out')}" != f"data-{hearing_of(directory_of(PICO))}"
    for name in ("out", "out-stt"):
        model = kyutai.load(KyutaiOptions(model=str(tmp_path / name), slots=2))
        model.step(np.zeros((2, FRAME_SAMPLES), dtype=np.float32), np.array([True, True]))
        model.close()
