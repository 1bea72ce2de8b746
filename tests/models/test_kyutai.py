"""Rows of a batch are conversations of their own: nothing passes between them, nor from one to the next."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from moshi.conditioners.base import ConditionAttributes
from moshi.models import loaders
from moshi.models.lm import LMGen
from moshi.utils.compile import no_compile

from rtc_server import bundled
from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.model import Example, ModelInfo, RowOutput, ServiceKind, StreamingModel
from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai.checkpoint import checkpoint_name, open_checkpoint
from rtc_server.models.kyutai.model import NO_TOKEN, KyutaiModel, load
from rtc_server.models.kyutai.options import KyutaiOptions

Floats = npt.NDArray[np.float32]
PCM_TOLERANCE = 1e-5
SAME_BATCH_TOLERANCE = {"cpu": 0.0, "cuda": PCM_TOLERANCE}
"""Of two batches of one size. Some of CUDA's convolutions add up in the order in which they get there."""
RING_FRAMES = 16
"""``context`` of the tiny checkpoints: longer conversations wrap every attention cache."""


def greedy(checkpoint: Path, slots: int, cfg_coef: float = 1.0, device: str = "cpu") -> KyutaiModel:
    """In float32 wherever it runs: rounding to bfloat16 would tell the sizes of batches apart."""
    options = KyutaiOptions(
        str(checkpoint), slots, device, "float32", temp=0.0, temp_text=0.0, threads=1, cfg_coef=cfg_coef
    )
    return load(options)


def only(slots: int, *rows: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(slots, dtype=np.bool_)
    mask[list(rows)] = True
    return mask


def noise(rng: np.random.Generator, rows: int) -> Floats:
    """Noise whose loudness differs from row to row and frame to frame."""
    loudness = rng.uniform(0.001, 0.3, size=(rows, 1))
    return (loudness * rng.standard_normal((rows, FRAME_SAMPLES))).astype(np.float32)


@dataclass
class Conversation:
    """What one user said, and what came back: a token row, text and audio (or None) for each frame."""

    heard: list[Floats] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    text: str = ""
    pcm: list[Floats | None] = field(default_factory=list)
    pauses: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, heard: Floats, tokens: npt.NDArray[np.int64], output: RowOutput | None) -> None:
        assert output is not None
        self.heard.append(heard.copy())
        self.tokens.append(tokens.tolist())
        self.text += output.text
        self.pcm.append(output.pcm)
        self.pauses.append(output.pauses)


def assert_same(one: Conversation, other: Conversation, tolerance: float = PCM_TOLERANCE) -> None:
    assert one.tokens == other.tokens
    assert one.text == other.text
    assert [pcm is None for pcm in one.pcm] == [pcm is None for pcm in other.pcm]
    for left, right in zip(one.pcm, other.pcm, strict=True):
        if left is not None and right is not None:
            np.testing.assert_allclose(left, right, rtol=0, atol=tolerance)
    np.testing.assert_allclose(one.pauses, other.pauses, rtol=0, atol=tolerance)


def alone(model: KyutaiModel, heard: list[Floats]) -> Conversation:
    """The same words to a model of one slot."""
    conversation = Conversation()
    for frame in heard:
        output = model.step(frame[None], only(1, 0))[0]
        conversation.add(frame, model.last_tokens[0], output)
    return conversation


def random_schedule(model: KyutaiModel, steps: int, seed: int) -> list[Conversation]:
    """Users who come, pause and go at random: slots are reset and used again, masks differ at each step."""
    rng = np.random.default_rng(seed)
    slots = model.info.slots
    current = [Conversation() for _ in range(slots)]
    ended: list[Conversation] = []
    for _ in range(steps):
        leaving = rng.random(slots) < 0.04
        model.reset(leaving)
        for row in np.flatnonzero(leaving):
            ended.append(current[row])
            current[row] = Conversation()
        pcm, active = noise(rng, slots), rng.random(slots) < 0.7
        outputs = model.step(pcm, active)
        for row in range(slots):
            if active[row]:
                current[row].add(pcm[row], model.last_tokens[row], outputs[row])
            else:
                assert outputs[row] is None
                assert set(model.last_tokens[row].tolist()) == {NO_TOKEN}
    return [conversation for conversation in ended + current if conversation.heard]


def stock_server(checkpoint: Path, heard: list[Floats], device: str = "cpu") -> Conversation:
    """The order of calls of the moshi package's own server, for one user, with nothing of ours."""
    found = open_checkpoint(str(checkpoint))
    mimi, lm = found.get_mimi(device), found.get_moshi(device, torch.float32)
    conditions = None
    if lm.condition_provider is not None:
        good = ConditionAttributes(text={"description": "very_good"})
        conditions = lm.condition_provider.prepare_and_provide([good])
    lm_gen = LMGen(lm, temp=0.0, temp_text=0.0, condition_tensors=conditions)
    tokenizer = found.get_text_tokenizer()
    conversation = Conversation(heard=heard)
    with torch.no_grad(), no_compile(), mimi.streaming(1), lm_gen.streaming(1):
        for index, frame in enumerate(heard):
            codes = mimi.encode(torch.from_numpy(frame).to(device)[None, None])
            if index == 0:
                mimi.reset_streaming()
            tokens = lm_gen.step(codes)
            conversation.pauses.append(())
            if tokens is None:
                conversation.tokens.append([NO_TOKEN] * (1 + lm.dep_q))
                conversation.pcm.append(None)
                continue
            conversation.tokens.append(tokens[0, :, 0].tolist())
            conversation.pcm.append(mimi.decode(tokens[:, 1:])[0, 0].cpu().numpy())
            token = int(tokens[0, 0, 0])
            if token not in (0, 3):
                conversation.text += tokenizer.id_to_piece(token).replace("▁", " ")
    return conversation


# Rows of a batch against conversations alone


@pytest.mark.parametrize(("kind", "seed"), [("moshi", 0), ("moshi", 1), ("moshi", 2), ("hibiki", 3)])
def test_each_row_is_what_the_stock_server_would_have_said(
    request: pytest.FixtureRequest, device: str, kind: str, seed: int
) -> None:
    checkpoint: Path = request.getfixturevalue(f"{kind}_checkpoint")
    conversations = random_schedule(greedy(checkpoint, 4, device=device), steps=60, seed=seed)
    assert len(conversations) > 4, "no slot was used again"
    assert max(len(conversation.heard) for conversation in conversations) > RING_FRAMES + 1
    for conversation in conversations:
        assert_same(conversation, stock_server(checkpoint, conversation.heard, device))
    assert len({tuple(map(tuple, c.tokens[2:6])) for c in conversations if len(c.tokens) > 6}) > 4, "all said the same"


@pytest.mark.parametrize("seed", range(2))
def test_rows_of_a_speech_to_text_model_are_independent(stt_checkpoint: Path, device: str, seed: int) -> None:
    for conversation in random_schedule(greedy(stt_checkpoint, 3, device=device), steps=60, seed=seed):
        assert_same(conversation, alone(greedy(stt_checkpoint, 1, device=device), conversation.heard))


@pytest.mark.parametrize("cfg_coef", [1.0, 3.0])
def test_rows_of_a_guided_translation_are_independent(hibiki_checkpoint: Path, cfg_coef: float) -> None:
    """Guidance doubles the batch inside: slot i has rows i and slots + i."""
    for conversation in random_schedule(greedy(hibiki_checkpoint, 3, cfg_coef), steps=40, seed=5):
        assert_same(conversation, alone(greedy(hibiki_checkpoint, 1, cfg_coef), conversation.heard))


def test_warm_up_changes_nothing(moshi_checkpoint: Path, device: str) -> None:
    warm, cold = (greedy(moshi_checkpoint, 2, device=device) for _ in range(2))
    warm.warm_up()
    for one, other in zip(random_schedule(warm, 20, 1), random_schedule(cold, 20, 1), strict=True):
        assert_same(one, other, SAME_BATCH_TOLERANCE[device])


def test_a_seed_decides_what_is_sampled(moshi_checkpoint: Path) -> None:
    def sampled(seed: int) -> list[list[int]]:
        model = load(KyutaiOptions(str(moshi_checkpoint), slots=1, seed=seed, threads=1))
        model.warm_up()
        return alone(model, list(noise(np.random.default_rng(0), 10))).tokens

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_the_checkpoint_says_how_to_sample_unless_told(stt_checkpoint: Path) -> None:
    """The tiny STT's config.json has temperature 0."""
    frames = list(noise(np.random.default_rng(0), 12))

    def written(seed: int, temp_text: float | None) -> list[list[int]]:
        options = KyutaiOptions(str(stt_checkpoint), slots=1, seed=seed, temp_text=temp_text, threads=1)
        return alone(load(options), frames).tokens

    assert written(1, None) == written(2, None)
    assert written(1, 5.0) != written(2, 5.0)


# Poison


def run(model: KyutaiModel, frames: list[Floats], row: int, from_row: Floats | None) -> list[Conversation]:
    """All rows hear ``frames`` ([steps][slots, 1920]), ``row`` hears ``from_row`` instead if that is given."""
    slots = model.info.slots
    conversations = [Conversation() for _ in range(slots)]
    for frame in frames:
        pcm = frame.copy()
        if from_row is not None:
            pcm[row] = from_row
        outputs = model.step(pcm, np.ones(slots, dtype=np.bool_))
        for index in range(slots):
            conversations[index].add(pcm[index], model.last_tokens[index], outputs[index])
    return conversations


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_a_poisoned_row_reaches_neither_its_neighbours_nor_the_next_user(
    moshi_checkpoint: Path, device: str, poison: float
) -> None:
    tolerance = SAME_BATCH_TOLERANCE[device]
    rng = np.random.default_rng(11)
    first = [noise(rng, 3) for _ in range(8)]
    second = [noise(rng, 3) for _ in range(RING_FRAMES + 4)]
    model, clean, fresh = (greedy(moshi_checkpoint, 3, device=device) for _ in range(3))

    poisoned = run(model, first, 1, np.full(FRAME_SAMPLES, poison, dtype=np.float32))
    expected = run(clean, first, 1, None)
    for row in (0, 2):
        assert_same(poisoned[row], expected[row], tolerance)
    if np.isnan(poison):
        assert any(np.isnan(value).any() for value in row_contents(model, 1).values()), "the poison did not take"

    model.reset(only(3, 1))
    clean.reset(only(3, 1))
    after, clean_after = run(model, second, 1, None), run(clean, second, 1, None)
    for row in range(3):
        assert_same(after[row], clean_after[row], tolerance)
    assert_same(after[1], run(fresh, second, 1, None)[1], tolerance)


def test_what_an_inactive_row_is_given_is_ignored(moshi_checkpoint: Path) -> None:
    rng = np.random.default_rng(2)
    frames = list(noise(rng, 6))
    model = greedy(moshi_checkpoint, 2)
    conversation = Conversation()
    for frame in frames:
        model.step(np.full((2, FRAME_SAMPLES), np.nan, dtype=np.float32), only(2, 1))
        output = model.step(np.stack([frame, np.full_like(frame, np.nan)]), only(2, 0))[0]
        conversation.add(frame, model.last_tokens[0], output)
    assert_same(conversation, stock_server(moshi_checkpoint, frames))


# Wiping


def tensors_in(name: str, holder: object) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that can be reached from a streaming state, found without the code under test."""
    for attribute, value in vars(holder).items():
        if isinstance(value, torch.Tensor) and attribute != "exec_mask":
            yield f"{name}.{attribute}", value
        elif (
            type(value).__module__.startswith(("moshi.", "rtc_server.models.kyutai.kv_cache"))
            and type(value).__name__ != "CUDAGraphed"
        ):
            yield from tensors_in(f"{name}.{attribute}", value)


def row_contents(model: KyutaiModel, row: int) -> dict[str, npt.NDArray[np.float64]]:
    """What the states hold of a row, by name. Works for 3 slots: no other dimension of the tiny models is 3 or 6."""
    contents = {}
    for name, state in model.streaming_states.items():
        for path, tensor in tensors_in(name, state):
            dims = [dim for dim, size in enumerate(tensor.shape) if size in (3, 6)]
            if dims and tensor.numel():
                rows = range(row, tensor.shape[dims[0]], 3)
                contents[path] = np.stack([tensor.select(dims[0], at).double().cpu().numpy() for at in rows])
    return contents


@pytest.mark.parametrize(("kind", "cfg_coef"), [("moshi", 1.0), ("stt", 1.0), ("hibiki", 3.0)])
def test_reset_leaves_nothing_of_a_row_and_all_of_the_others(
    request: pytest.FixtureRequest, device: str, kind: str, cfg_coef: float
) -> None:
    checkpoint = request.getfixturevalue(f"{kind}_checkpoint")
    model = greedy(checkpoint, 3, cfg_coef, device)
    fresh = {row: row_contents(model, row) for row in range(3)}
    assert any(".kv_cache.cache" in name for name in fresh[0])
    assert any(name.endswith(".previous") for name in fresh[0])
    assert "lm_gen.cache" in fresh[0]

    random_schedule(model, steps=RING_FRAMES + 4, seed=3)
    used = {row: row_contents(model, row) for row in range(3)}
    changed = [name for name, value in used[1].items() if not np.array_equal(value, fresh[1][name])]
    assert len(changed) > 10

    model.reset(only(3, 1))
    for row in range(3):
        expected = fresh[row] if row == 1 else used[row]
        for name, value in row_contents(model, row).items():
            np.testing.assert_array_equal(value, expected[name], err_msg=f"{name}, row {row}")
    assert set(model.last_tokens[1].tolist()) == {NO_TOKEN}


def test_reset_of_no_row_changes_nothing(moshi_checkpoint: Path) -> None:
    frames = list(noise(np.random.default_rng(4), 6))
    model = greedy(moshi_checkpoint, 1)
    conversation = Conversation()
    for frame in frames:
        model.reset(only(1))
        conversation.add(frame, *reversed((model.step(frame[None], only(1, 0))[0], model.last_tokens[0])))
    assert_same(conversation, stock_server(moshi_checkpoint, frames))


# The contract


def test_what_a_dialogue_model_says_of_itself(moshi_checkpoint: Path) -> None:
    model: StreamingModel = greedy(moshi_checkpoint, 2)
    assert model.info == ModelInfo("tiny-moshi", ServiceKind.DIALOGUE, 2, "cpu", speaks=True, writes=True)


def test_a_checkpoint_may_tell_of_itself(moshi_checkpoint: Path, tmp_path: Path) -> None:
    directory = tmp_path / "talkative"
    shutil.copytree(moshi_checkpoint, directory)
    examples = [{"topic": "Count", "say": ["count to ten", "stop"]}]
    (directory / "about.json").write_text(json.dumps({"notice": "It is small.", "hint": "make", "examples": examples}))
    info = greedy(directory, 1).info
    assert (info.name, info.notice, info.hint) == ("talkative", "It is small.", "make")
    assert info.examples == (Example("Count", ("count to ten", "stop")),)


def test_the_bundled_model_is_known_by_its_name_alone(moshi_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever its files are; and it is a checkpoint like any other."""
    monkeypatch.setattr(bundled, "_DIRECTORIES", {"pico": moshi_checkpoint})
    assert checkpoint_name("pico") == "pico"
    info = load(KyutaiOptions("pico", 2, threads=1)).info
    assert info == dataclasses.replace(greedy(moshi_checkpoint, 2).info, name="pico")


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


def test_the_engine_plane_has_no_web_server_and_the_package_no_torch() -> None:
    code = (
        "import sys, rtc_server.models.kyutai.text, rtc_server.engine.model\n"
        "assert 'torch' not in sys.modules\n"
        "import rtc_server.models.kyutai.model\n"
        "assert not {'aiohttp', 'aiortc', 'moshi.server'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Loading what cannot be loaded


def broken_copy(checkpoint: Path, tmp_path: Path, **config: object) -> Path:
    """A copy of a checkpoint whose config.json says something else."""
    directory = tmp_path / "broken"
    shutil.copytree(checkpoint, directory)
    original = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(original | config))
    return directory


def assert_refused(options: KyutaiOptions, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message) as caught:
        load(options)
    assert caught.value.hint


@pytest.mark.parametrize("model", ["/no/such/place", "./nowhere", "nowhere", "", "a/b/c"])
def test_a_model_that_is_nowhere(model: str) -> None:
    assert_refused(KyutaiOptions(model, 1), "neither a directory nor a hub repository")


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("secret detail of the network")

    monkeypatch.setattr(loaders, "hf_hub_download", unreachable)
    assert_refused(KyutaiOptions("kyutai/moshiko-pytorch-bf16", 1), r"cannot be had from the hub \(OSError\)\.$")


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "mimi.safetensors", "mimi.json", "tokenizer.model"]
)
def test_a_missing_file(moshi_checkpoint: Path, tmp_path: Path, name: str) -> None:
    directory = broken_copy(moshi_checkpoint, tmp_path)
    (directory / name).unlink()
    assert_refused(KyutaiOptions(str(directory), 1), name)


@pytest.mark.parametrize("name", bundled.FILES)
def test_a_bundled_model_that_is_not_all_there(
    moshi_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    directory = broken_copy(moshi_checkpoint, tmp_path)
    (directory / name).unlink()
    monkeypatch.setattr(bundled, "_DIRECTORIES", {"pico": directory})
    assert_refused(KyutaiOptions("pico", 1), rf"^The bundled model pico lacks {name}\.$")


@pytest.mark.parametrize("name", ["config.json", "mimi.json"])
@pytest.mark.parametrize("content", [b"{oops", b"\xff\xfe", b"[1, 2]"])
def test_a_configuration_that_is_none(moshi_checkpoint: Path, tmp_path: Path, name: str, content: bytes) -> None:
    directory = broken_copy(moshi_checkpoint, tmp_path)
    (directory / name).write_bytes(content)
    assert_refused(KyutaiOptions(str(directory), 1), f"{name} is .*JSON")


@pytest.mark.parametrize("name", ["model.safetensors", "mimi.safetensors", "tokenizer.model"])
def test_a_file_with_something_else_in_it(moshi_checkpoint: Path, tmp_path: Path, name: str) -> None:
    directory = broken_copy(moshi_checkpoint, tmp_path)
    (directory / name).write_bytes(b"not what it says")
    assert_refused(KyutaiOptions(str(directory), 1), r"broken cannot be loaded \(\w+\)\.$")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dim": 64}, "broken cannot be loaded"),
        ({"no_such_option": 1}, "broken cannot be loaded"),
        ({"moshi_name": 5}, "moshi_name is not a file name"),
        ({"model_type": "tts"}, "'tts'"),
        ({"mimi_name": "config.json"}, "not a safetensors file"),
    ],
)
def test_a_configuration_that_does_not_fit(
    moshi_checkpoint: Path, tmp_path: Path, config: dict[str, object], message: str
) -> None:
    assert_refused(KyutaiOptions(str(broken_copy(moshi_checkpoint, tmp_path, **config)), 1), message)


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "meta", ""])
def test_a_device_that_is_not_there(moshi_checkpoint: Path, device: str) -> None:
    assert_refused(KyutaiOptions(str(moshi_checkpoint), 1, device=device), "device|cuda:99")


def test_no_slots(moshi_checkpoint: Path) -> None:
    assert_refused(KyutaiOptions(str(moshi_checkpoint), 0), "at least one slot")


def test_guidance_without_conditions(moshi_checkpoint: Path) -> None:
    assert_refused(KyutaiOptions(str(moshi_checkpoint), 1, cfg_coef=2.0), "no conditions")
