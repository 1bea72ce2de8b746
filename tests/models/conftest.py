"""Tiny checkpoints, written once a run, and where they run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from rtc_server.models.tiny import write_tiny_checkpoint

if not torch.cuda.is_available():
    # Before triton is imported, which no module does that is only collected: its kernels run on tensors of a CPU then.
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.timeout(600))])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What holds on a CPU holds on CUDA, where the first steps of a kind also wait for a compiler."""
    name: str = request.param
    if name == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        # Convolutions would otherwise be rounded to 10 bits, differently for each size of the batch.
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return name


@pytest.fixture(scope="session")
def moshi_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-moshi", "moshi")


@pytest.fixture(scope="session")
def stt_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-stt", "stt")


@pytest.fixture(scope="session")
def hibiki_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-hibiki", "hibiki")
