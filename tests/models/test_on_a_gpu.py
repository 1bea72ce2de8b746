"""What a machine with a GPU runs by itself, and how much of it: ``check``, the plan and the engine say the same, and so
does the document. The GPU is pretended; nothing is downloaded."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.cli import check
from rtc_server.config import DEFAULT_MODEL, Settings, parse
from rtc_server.models.kyutai import estimate, fit
from rtc_server.models.kyutai.checkpoint import read_configuration
from rtc_server.models.kyutai.estimate import footprint
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.models.kyutai.page_count import (
    RESERVE_BYTES,
    DeviceMemory,
    PagedNeeds,
    pages_that_fit,
    room_for_pages,
)
from rtc_server.models.kyutai.page_table import RESERVE_FRAMES, places
from rtc_server.services import plan
from rtc_server.system import hardware
from tests.support.server_process import ROOT

GIB = 2**30
CARDS = (16, 24, 40, 48, 80, 141)
TAKEN_GIB = 0.5
"""By the driver and CUDA's own context."""


@pytest.fixture(autouse=True)
def _triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """As PyTorch's CUDA builds bring it."""
    monkeypatch.setattr(estimate, "at_hand", lambda device: device.type == "cuda")


@pytest.fixture(autouse=True)
def empty_hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def free_bytes(card_gib: int) -> int:
    return int((card_gib - TAKEN_GIB) * GIB)


@pytest.fixture
def card_gib(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """There is a GPU of this size."""
    size: int = request.param
    monkeypatch.setattr(hardware, "cuda_devices", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free_bytes(size), size * GIB))
    return size


def dialogue(settings: Settings) -> KyutaiOptions:
    options = plan(settings, 1)[0].options
    assert isinstance(options, KyutaiOptions)
    return options


@pytest.mark.parametrize("card_gib", CARDS, indirect=True)
def test_by_itself_a_gpu_runs_moshi_with_as_much_memory_as_it_has(card_gib: int) -> None:
    """8 conversations: not on 16 GiB, two minutes each on 24, and all that the model remembers from 40 on."""
    options = dialogue(Settings())
    assert (options.model, options.device, options.slots, options.pages) == (DEFAULT_MODEL, "cuda", 8, None)
    report = check.report(Settings())[0]
    assert f"ok       --model auto runs {DEFAULT_MODEL}" in report
    (line,) = (line for line in report.splitlines() if "device 0, " in line)
    if card_gib == 16:
        assert line.startswith("missing")
        assert "memory for 0 sessions of dialogue, 8 asked for" in line
        return
    assert line.startswith("ok       ")
    found = re.search(
        r"8 sessions of dialogue that remember (\d+) s( \(all that it can\))? in the mean: (\d+) pages$", line
    )
    assert found is not None
    seconds, everything, pages = int(found[1]), found[2] is not None, int(found[3])
    assert 120 <= seconds <= 241
    assert everything is (card_gib >= 40)
    weights = footprint(options).weights_bytes
    device = DeviceMemory(free_bytes(card_gib) - weights, card_gib * GIB)
    assert fit.count_pages(read_configuration(options.model), options, True, lambda _: device) == pages


@pytest.mark.parametrize("card_gib", [40], indirect=True)
def test_a_translator_on_the_same_gpu_is_left_its_memory(card_gib: int, tmp_path: Path) -> None:
    """Of 4 Gi weights, which its file alone says that it has."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [4, GIB], "data_offsets": [0, 16 * GIB]}}).encode()
    translator = tmp_path / "translator"
    translator.mkdir()
    (translator / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)

    def pages(*more: str) -> int:
        report = check.report(parse(["--slots", "64", *more], {}))[0]
        found = re.search(r"sessions of dialogue that remember .* in the mean: ([\d,]+) pages", report)
        assert found is not None, report
        return int(found[1].replace(",", ""))

    beside = ("--translate", str(translator))
    page_bytes = footprint(dialogue(Settings(slots=64))).page_bytes
    assert (pages() - pages(*beside)) * page_bytes == pytest.approx(8 * GIB + RESERVE_BYTES, abs=page_bytes)
    assert pages("--rooms", "off", *beside) == pages()


def documented() -> Iterator[tuple[list[str], list[int]]]:
    """Options, and sessions at a time by card, as the document has them."""
    text = (ROOT / "docs" / "deploy.md").read_text()
    table = text.partition("| sessions at a time, by card |")[2].partition("\n\n")[0]
    for row in table.splitlines()[2:]:
        first, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        options = first.strip("`").split() if first.startswith("`") else []
        yield options, [int(cell) for cell in cells]


def at_a_time(needs: PagedNeeds, card_gib: int) -> int:
    """For how many slots there is memory, so that each can come to its reserve."""
    free = free_bytes(card_gib) - needs.weights_bytes
    reserve = min(places(RESERVE_FRAMES), needs.pages_a_slot)
    found = 0
    for slots in range(1, 400):
        some = dataclasses.replace(needs, slots=slots, rest_bytes=needs.rest_bytes // needs.slots * slots)
        if room_for_pages(some, free) >= slots and pages_that_fit(some, free) // reserve >= slots:
            found = slots
    return found


def test_how_many_have_memory_is_what_the_document_says() -> None:
    """A few more, if anything."""
    rows = list(documented())
    assert [options for options, _ in rows] == [
        [],
        ["--context", "1500"],
        ["--kv-dtype", "float8"],
        ["--quantize", "int8"],
        ["--quantize", "int8", "--kv-dtype", "float8"],
    ]
    for options, cells in rows:
        wanted = dialogue(parse(["--slots", "64", *options], {}))
        needs = fit.paged_needs(footprint(wanted), 64)
        assert needs is not None
        found = [at_a_time(needs, card) for card in CARDS]
        assert len(cells) == len(CARDS)
        for said, computed in zip(cells, found, strict=True):
            assert said <= computed <= 1.4 * said + 4, (options, cells, found)


def test_the_model_comes_from_the_hub_s_cache(moshi_checkpoint: Path, empty_hub_cache: Path) -> None:
    """As a download leaves it, and with no network: a small one stands there for Moshi 7B."""
    repository = empty_hub_cache / ("models--" + DEFAULT_MODEL.replace("/", "--"))
    snapshot = repository / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0")
    for file in moshi_checkpoint.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    options = dataclasses.replace(dialogue(Settings(slots=2)), device="cpu", threads=1)
    assert options.model == DEFAULT_MODEL
    model = fit.load_if_it_fits(options)
    assert model.info.name == DEFAULT_MODEL
    everyone = np.ones(2, dtype=np.bool_)
    made = [model.step(np.zeros((2, FRAME_SAMPLES), dtype=np.float32), everyone) for _ in range(4)]
    assert all(output is not None and output.pcm is not None for output in made[-1])
    assert model.pages_use(everyone) is not None
