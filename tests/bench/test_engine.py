"""The engine's benchmark: its arithmetic, what it counts, and short real runs. Nothing here asserts by the clock."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from pathlib import Path

import numpy as np
import pytest

from bench import engine
from bench.apart import apart
from bench.architectures import MOSHI_7B, Untrained, Weighed, checkpoint_of, product_model, shape
from bench.architectures import engine as weighed_engine
from bench.callers import FRAME_S, Call, Figures, keep_calling
from bench.floor import counts, size
from bench.operations import Operation, group_of, grouped, operations
from bench.plain import Device, Lockstep
from bench.weights import Memory, Sizes, WeighedOptions
from lab.waiting import until
from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.client import EngineClient
from rtc_server.engine.local import LocalLink
from rtc_server.engine.messages import StepDone
from rtc_server.engine.model import TokenMark
from rtc_server.engine.stream import StreamOutput
from rtc_server.metrics import Metrics
from rtc_server.models.echo import EchoModel
from rtc_server.models.kyutai.model import build
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.models.tiny import write_tiny_checkpoint

pytestmark = pytest.mark.slow

GIB = 2**30


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("bench") / "tiny")


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    engine.add_arguments(parser)
    return parser.parse_args(given)


def test_numbers_are_read_once_each_in_their_order() -> None:
    assert counts("1,8, 16,8") == [1, 8, 16]
    assert arguments("--slots", "80,1").slots == [80, 1]
    assert arguments().slots == [1, 4, 16]


@pytest.mark.parametrize("text", ["", "0", "1,-2", "many", "1,,2"])
def test_what_is_no_list_of_numbers_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a list"):
        counts(text)


def test_a_step_reads_the_weights_once_and_every_session() -> None:
    """Embeddings are weights, and not read."""
    sizes = Sizes(weights=1000, read=800, session=10)
    assert sizes.floor_s(1, bytes_per_s=100) == pytest.approx(8.1)
    assert sizes.floor_s(20, bytes_per_s=100) == pytest.approx(10.0)
    assert sizes.needed(20) == 1200


def test_the_sizes_of_moshi_are_known_without_a_card() -> None:
    """14.3 GiB and a cache of 512 KiB a frame, by its configuration; Mimi adds some hundred MiB, and 16 a session."""
    sizes = shape(MOSHI_7B, None, "bfloat16")
    assert 14.3 * GIB < sizes.weights < 14.8 * GIB
    assert 13.5 * GIB < sizes.read < sizes.weights
    mimi = sizes.session - 3000 * 512 * 1024
    assert 14 * 2**20 < mimi < 18 * 2**20
    assert shape(MOSHI_7B, 750, "bfloat16").session == mimi + 750 * 512 * 1024


def test_a_shape_is_as_large_as_the_model(tiny: Path) -> None:
    """But for the tokens that LMGen keeps, some hundred bytes a session."""
    model = product_model(KyutaiOptions(str(tiny), slots=3))
    weighed = Weighed(model, Path("unused"))._sizes
    predicted = shape(str(tiny), None, "float32")
    assert (weighed.weights, weighed.read) == (predicted.weights, predicted.read)
    assert 0 <= weighed.session - predicted.session < 1000


def test_sizes_are_for_people() -> None:
    assert [size(count) for count in (512, 3 * 2**19, 15 * GIB)] == ["0.5 KiB", "1.5 MiB", "15.0 GiB"]


def test_memory_is_handed_over_in_a_file(tmp_path: Path) -> None:
    memory = Memory(Sizes(3, 2, 1), 4)
    memory.write(tmp_path / "report")
    assert Memory.read(tmp_path / "report") == memory


def test_an_untrained_model_is_the_products_own(tiny: Path) -> None:
    """The same classes and the same steps, without a file."""
    config = json.loads((tiny / "config.json").read_text())
    found = checkpoint_of(str(tiny))
    model = build("untrained", Untrained(found.lm_config, found.mimi_config), KyutaiOptions("", slots=2, threads=1))
    model.warm_up()
    assert (model.info.name, model.info.speaks) == ("untrained", True)
    assert model.modules[1].text_card == config["text_card"]


def test_moshi_needs_no_file() -> None:
    found = checkpoint_of(MOSHI_7B)
    assert found.get_text_tokenizer().piece_size() == 32_000


def output(frame: int) -> StreamOutput:
    return StreamOutput(frame, None, "", (), TokenMark.NONE, None)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_frames_count_from_push_to_output() -> None:
    clock, figures = Clock(), Figures(begins_at=0.0)
    call = Call(figures, clock)
    for frame, took_s in enumerate((0.03, 0.2), 1):
        call.on_push(clock.now)
        clock.now += took_s
        call.on_output(output(frame))
    assert figures.frames == pytest.approx([0.03, 0.2])
    assert figures.late == 0.5


def test_a_frame_that_is_overtaken_is_lost_and_late() -> None:
    figures = Figures(begins_at=0.0)
    call = Call(figures, Clock())
    for _ in range(3):
        call.on_push(0.0)
    call.on_output(output(3))
    assert (len(figures.frames), figures.lost) == (1, 2)
    assert figures.late == pytest.approx(2 / 3)


def test_what_is_still_in_time_at_the_end_of_a_call_is_nobodys_loss() -> None:
    """What was overdue by then is late, though nobody will ever know by how much."""
    figures = Figures(begins_at=0.0)
    call = Call(figures, Clock())
    call.on_push(1.0)
    call.on_push(1.0 + FRAME_S)
    call.hang_up(1.0 + 1.5 * FRAME_S)
    assert (figures.lost, figures.overdue, figures.sessions) == (0, 1, 1)
    assert figures.late == 1.0


def test_nothing_counts_before_the_beginning() -> None:
    clock, figures = Clock(), Figures(begins_at=10.0)
    call = Call(figures, clock)
    call.on_push(9.9)
    call.on_push(9.95)
    clock.now = 10.5
    call.on_output(output(2))
    figures.on_step(StepDone(0.01, 0, []), now=9.99)
    call.hang_up(9.99)
    assert figures == Figures(begins_at=10.0)
    assert figures.late is None
    figures.on_step(StepDone(0.01, 0, []), now=10.0)
    assert figures.steps == [0.01]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("aten::addmm", "matrix products"),
        ("nvjet_tst_128x64_64x8_1x2_h_bz_TNT", "matrix products"),
        ("void gemv2T_kernel_val<int, __nv_bfloat16>", "matrix products"),
        ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80", "attention"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::mkldnn_convolution", "convolutions"),
        ("sm80_xmma_fprop_implicit_gemm_tf32f32", "convolutions"),
        ("Memcpy HtoD (Pageable -> Device)", "copies"),
        ("aten::copy_", "copies"),
        ("void at::native::sbtopk::gatherTopK<float, unsigned int, 2, false>", "sampling"),
        ("triton_per_fused__to_copy_add_mean_mul_pow_rsqrt_0", "fused by torch's compiler"),
        ("aten::_softmax", "softmax"),
        ("aten::mul", "elementwise and others"),
    ],
)
def test_operations_are_grouped_by_their_names(name: str, group: str) -> None:
    assert group_of(name) == group


def test_groups_add_up() -> None:
    found = [Operation("aten::mul", 2, 0.1), Operation("aten::mm", 1, 0.5), Operation("aten::add", 3, 0.2)]
    assert grouped(found) == [
        Operation("matrix products", 1, 0.5),
        Operation("elementwise and others", 5, pytest.approx(0.3)),  # type: ignore[arg-type]
    ]


def test_a_profile_of_a_real_model(tiny: Path) -> None:
    found = operations(KyutaiOptions(str(tiny), slots=2, threads=1), 2)
    assert {"matrix products", "convolutions", "attention"} <= {each.name for each in grouped(found)}
    assert all(each.calls > 0 and each.seconds > 0 for each in found)


@pytest.mark.timeout(360)  # several engines, one after the other
def test_a_short_run_from_the_command_to_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The product's engine process with a tiny model, and everything that it is compared with."""
    engine.run(
        arguments("--slots", "2", "--seconds", "0.5", "--warm", "0", "--rounds", "1", "--life", "0.2", "--steps", "2")
    )
    printed = capsys.readouterr().out
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()]
    rows = {(line[0], line[1]): line[2:] for line in table if len(line) > 2}
    names = ["this server's engine", "a batch in lockstep", "bandwidth alone"]
    assert set(rows) >= {(name, "2") for name in names} | {("moshi.server's loop", "1")}
    weights, session, in_all = rows["this server's engine", "2"][-3:]
    assert (weights[-3:], session[-3:], in_all[-3:]) == ("KiB", "KiB", "MiB")
    assert "–" not in rows["a batch in lockstep", "2"][:4]
    assert "- Of " not in printed, "something has failed"


async def test_sessions_come_and_go_and_their_frames_are_counted() -> None:
    figures = Figures(begins_at=0.0)
    client = EngineClient(
        "bench", lambda: engine.TappedLink(LocalLink(lambda: EchoModel(2)), figures.on_step), Metrics()
    )
    client.start()
    await client.wait_settled()
    calling = asyncio.create_task(keep_calling(client, figures, random.Random(1), 0.2, float("inf")))
    try:
        await until(lambda: figures.sessions >= 3 and figures.frames and figures.steps)
    finally:
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        await client.close()
    assert client.slots_used == 0
    assert set(figures.rows) == {1}


def test_conversations_are_as_old_as_is_wanted(tiny: Path, tmp_path: Path) -> None:
    """From the end of the warm-up on, of which the report tells."""
    weighed = WeighedOptions(KyutaiOptions(str(tiny), slots=1, threads=1), str(tmp_path / "report"), fill=12)
    model = weighed_engine(weighed)
    model.warm_up()
    model.step(np.zeros((1, FRAME_SAMPLES), np.float32), np.ones(1, np.bool_))
    assert model._model._open.filled.frames == 12
    model.close()
    assert "at least 12 frames" in engine._fill(arguments("--fill", "12"))
    assert engine._fill(arguments()) == ""


def test_what_cannot_be_measured_is_said_and_does_not_hinder_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments("--arch", "nowhere", "--slots", "1", "--rounds", "2")
    runs, device = engine.measure(given, KyutaiOptions("nowhere", slots=1, threads=1), tmp_path / "report")
    assert runs[1].failure.startswith("nowhere is neither")
    assert runs[1].plain_failure.startswith("ModelLoadError: nowhere is neither")
    engine._publish(given, runs, device)
    assert "- Of 1: nowhere is neither" in capsys.readouterr().out


def test_a_table_has_every_column() -> None:
    """Whatever is missing."""
    memory = Memory(Sizes(2 * GIB, GIB, 2**20), 3 * GIB)
    device = Device("a card", "torch", float(GIB))
    everything = engine.Runs([Figures(0.0, [0.01], [1], [0.02])], [memory], [Lockstep([0.005], GIB)])
    for runs in (everything, engine.Runs(failure="no memory"), engine.Runs(plain_failure="no memory")):
        for row in engine._rows(2, runs, device):
            assert len(row) == len(engine._HEAD)
    assert engine._rows(2, everything, device)[2][2] == f"{(1 + 2 / 1024) * 1000:.1f}"


def test_a_function_apart_returns_what_it_returns_and_says_what_it_raises() -> None:
    assert apart(divmod, 7, 2) == (3, 1)
    with pytest.raises(RuntimeError, match=r"^ZeroDivisionError: "):
        apart(divmod, 7, 0)


def test_a_device_that_is_not_there_is_one_line_on_the_terminal() -> None:
    with pytest.raises(SystemExit, match=r"^error: tiny on cuda:99: "):
        engine.run(arguments("--device", "cuda:99", "--rounds", "1"))
