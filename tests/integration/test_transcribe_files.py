"""``rtc-server transcribe``: the same words as the moshi package finds, and what happens to files that are none."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from moshi.models.lm import LMGen
from moshi.utils.compile import no_compile

from lab.inputs.files import encode, noise, quantised
from lab.waiting import until
from rtc_server.audio import FRAME_MS, FRAME_SAMPLES, FloatArray
from rtc_server.cli import main as cli
from rtc_server.cli import recordings, transcribe
from rtc_server.config import Settings
from rtc_server.engine.client import EngineClient
from rtc_server.engine.local import LocalLink
from rtc_server.metrics import Metrics
from rtc_server.models.kyutai.checkpoint import open_checkpoint
from rtc_server.models.tiny import write_tiny_checkpoint
from rtc_server.transcription.file import Progress
from tests.support.orphans import alive
from tests.support.scribe import BREAK, Scribe, numbered
from tests.support.server_process import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-stt", "stt")


def plain_words(checkpoint: Path, pcm: FloatArray) -> list[tuple[str, float]]:
    """What a single stream through the moshi package finds, with nothing of ours: each word and when it starts, in
    seconds of ``pcm``.

    The order of calls is that of the package's own server; padding and times are those of Kyutai's own scripts.
    """
    found = open_checkpoint(str(checkpoint))
    mimi, lm, tokenizer = found.get_mimi("cpu"), found.get_moshi("cpu", torch.float32), found.get_text_tokenizer()
    prefix_s = found.stt_config["audio_silence_prefix_seconds"]
    delay_s = found.stt_config["audio_delay_seconds"]
    frame_s = 1 / mimi.frame_rate
    pcm = np.pad(pcm, (round(prefix_s * mimi.sample_rate), -pcm.size % FRAME_SAMPLES))
    pcm = np.pad(pcm, (0, round((delay_s + 1.0) / frame_s + 0.5) * FRAME_SAMPLES))
    lm_gen = LMGen(lm, temp=0.0, temp_text=0.0)
    tokens: list[int] = []
    with torch.no_grad(), no_compile(), mimi.streaming(1), lm_gen.streaming(1):
        for index, frame in enumerate(torch.from_numpy(pcm).split(FRAME_SAMPLES)):
            codes = mimi.encode(frame[None, None])
            if index == 0:
                mimi.reset_streaming()
            made = lm_gen.step(codes)
            tokens.append(-1 if made is None else int(made[0, 0, 0]))
    words: list[tuple[str, float]] = []
    pieces = ""
    start = 0
    for index, token in enumerate([*tokens, 3]):
        piece = "" if token in (-1, 0, 3) else tokenizer.id_to_piece(token).replace("▁", " ")
        if pieces and (not piece or piece.startswith(" ")):
            words.append((pieces.strip(), max(0.0, start * frame_s - delay_s - prefix_s)))
            pieces = ""
        if piece and not pieces:
            start = index
        pieces += piece
    return words


def command(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the program."""
    line = [sys.executable, "-m", "rtc_server", "transcribe", *map(str, arguments)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    return done.returncode, done.stdout, done.stderr


def test_files_give_the_words_of_a_plain_loop_over_the_moshi_package(checkpoint: Path, tmp_path: Path) -> None:
    """Through the command, the engine's process, its batch of three rows, and files that end at different times."""
    recordings = [noise(seconds, seed) for seed, seconds in enumerate((9.0, 6.33, 12.1, 4.0))]
    paths = [tmp_path / f"{seed}.wav" for seed in range(len(recordings))]
    for path, pcm in zip(paths, recordings, strict=True):
        path.write_bytes(encode(pcm))
    status, out, err = command(*paths, "--stt", checkpoint, "--stt-slots", "3", "--format", "json", "--threads", "1")
    assert (status, out, err) == (0, "", "")
    for path, pcm in zip(paths, recordings, strict=True):
        made = json.loads(Path(f"{path}.json").read_text())
        expected = plain_words(checkpoint, quantised(pcm))
        assert len(expected) > 5
        assert [word["text"] for word in made["words"]] == [text for text, _ in expected]
        times = [word["start_ms"] for word in made["words"]]
        assert made["duration_ms"] == round(pcm.size / 24)
        expected_ms = [min(start_s * 1000, made["duration_ms"]) for _, start_s in expected]
        assert times == pytest.approx(expected_ms, abs=FRAME_MS)
        assert max(word["end_ms"] for word in made["words"]) <= made["duration_ms"]
    assert len({Path(f"{path}.json").read_text() for path in paths}) == len(paths)


def ignore_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize(
    ("number", "before", "status"),
    [(signal.SIGINT, None, 130), (signal.SIGINT, ignore_ctrl_c, 130), (signal.SIGTERM, None, 143)],
    ids=["ctrl-c", "ctrl-c in the background", "told to end"],
)
async def test_a_signal_stops_it_and_leaves_no_process(
    checkpoint: Path, tmp_path: Path, number: signal.Signals, before: Callable[[], None] | None, status: int
) -> None:
    """A shell starts what runs in the background with SIGINT ignored."""
    path = tmp_path / "long.wav"
    path.write_bytes(encode(np.zeros(24_000 * 1200)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rtc_server", "transcribe", str(path), "--stt", str(checkpoint), "--log-level", "info"),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
        process_group=0,
        preexec_fn=before,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(100):
            log = await process.stderr.readuntil(b"ready:")
            children = psutil.Process(process.pid).children(recursive=True)
            assert children
            os.killpg(process.pid, number)  # as a terminal does it: the engine gets it too
            log += await process.stderr.read()
            assert await process.wait() == status
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert b"error: stopped before the end" in log
    assert b"Traceback" not in log
    await until(lambda: not alive(children), "the end of all")
    assert not list(tmp_path.glob("*.txt*"))  # noqa: ASYNC240


def test_files_that_are_not_there_are_told_before_a_model_is_loaded(tmp_path: Path) -> None:
    """Which would take its time: of a repository that is not there it would say so."""
    missing = [tmp_path / "one.wav", tmp_path / "two.wav", tmp_path]
    status, out, err = command(*missing, "--stt", "nobody/no-such-model", "--log-level", "info")
    assert (status, out) == (1, "")
    one, two, directory = err.splitlines()
    assert one == f"error: {missing[0]}: cannot be read: No such file or directory."
    assert two == f"error: {missing[1]}: cannot be read: No such file or directory."
    assert directory == f"error: {tmp_path}: cannot be read: Is a directory."


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encode(numbered(1)))
    status, out, err = command(path, "--stt", tmp_path / "nowhere", "--log-level", "error")
    assert (status, out) == (1, "")
    assert re.search(r"^error: .+\nhint: .+", err, re.MULTILINE)
    assert "Traceback" not in err


# In this process, with a model that writes what can be checked


@pytest.fixture
def scribes(monkeypatch: pytest.MonkeyPatch) -> list[Scribe]:
    """The models that were made, in place of those of --stt."""
    made: list[Scribe] = []

    def make_transcriber(settings: Settings, metrics: Metrics, streams: int) -> EngineClient:
        def load() -> Scribe:
            made.append(Scribe(min(streams, settings.stt_slots or 4)))
            return made[-1]

        return EngineClient("transcribe", lambda: LocalLink(load), metrics)

    monkeypatch.setattr(transcribe, "make_transcriber", make_transcriber)
    return made


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    """A directory with three recordings, which is also where we are."""
    for name, first in (("one.wav", 10), ("two.wav", 20), ("three.wav", 30)):
        (tmp_path / name).write_bytes(encode(numbered(*range(first, first + 3))))
    with contextlib.chdir(tmp_path):
        yield tmp_path


Ran = tuple[int, str, str]


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    status = cli.main(["transcribe", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.usefixtures("scribes", "files")
def test_one_file_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, "one.wav") == (0, "10 11 12\n", "")
    assert ran(capsys, "one.wav", "--format", "vtt")[1].startswith("WEBVTT\n\n00:00:00.000 --> ")


def test_several_go_beside_the_files(scribes: list[Scribe], files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, "one.wav", "two.wav", "three.wav") == (0, "", "")
    assert {path.name: path.read_text() for path in files.glob("*.txt")} == {
        "one.wav.txt": "10 11 12\n",
        "two.wav.txt": "20 21 22\n",
        "three.wav.txt": "30 31 32\n",
    }
    assert [scribe.info.slots for scribe in scribes] == [3], "no more than there are files"


def test_more_files_than_slots_follow_each_other(
    scribes: list[Scribe], files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [f"{number}.wav" for number in range(1, 8)]
    for name in many:
        (files / name).write_bytes(encode(numbered(*[int(name[0])] * 30)))
    assert ran(capsys, *many, "--stt-slots", "2") == (0, "", "")
    assert [(files / f"{name}.txt").read_text().split()[-1] for name in many] == list("1234567")
    assert scribes[0].info.slots == 2


@pytest.mark.usefixtures("scribes")
def test_output_has_its_own_place(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "out").mkdir()
    assert ran(capsys, "one.wav", "--output", "out", "--format", "srt") == (0, "", "")
    assert [path.name for path in (files / "out").iterdir()] == ["one.wav.srt"]
    status, _, err = ran(capsys, "one.wav", "--output", "nowhere")
    assert status == 1
    assert err.startswith("error: nowhere is not a directory.\nhint: ")


@pytest.mark.usefixtures("scribes")
def test_two_transcripts_never_share_a_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "other").mkdir()
    (files / "other" / "one.wav").write_bytes(encode(numbered(9)))
    for arguments in (("one.wav", "one.wav"), ("one.wav", "other/one.wav", "--output", ".")):
        status, _, err = ran(capsys, *arguments)
        assert (status, err.split("\n")[0]) == (1, "error: Two files would have their transcript in the same place.")
    assert ran(capsys, "one.wav", "other/one.wav")[0] == 0


@pytest.mark.usefixtures("scribes")
def test_one_bad_file_does_not_stop_the_others(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "empty.wav").write_bytes(b"")
    (files / "notes.wav").write_text("buy milk\n" * 100)
    (files / "half.wav").write_bytes((files / "one.wav").read_bytes()[:-4000])
    (files / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:2,\n{files / 'one.wav'}\n#EXT-X-ENDLIST\n")
    bad = ["empty.wav", "notes.wav", "missing.wav", ".", "list.m3u8"]
    status, out, err = ran(capsys, *bad, "half.wav", "two.wav")
    assert (status, out) == (1, "")
    errors = re.findall(r"^error: (.+?): (.+)$", err, re.MULTILINE)
    assert sorted(name for name, _ in errors) == sorted(bad)
    assert dict(errors)["missing.wav"] == "cannot be read: No such file or directory."
    assert dict(errors)["notes.wav"].startswith("The file holds no audio that can be decoded: ")
    assert dict(errors)["empty.wav"] == "The file is empty."
    assert err.count("hint: ") == 3
    assert re.findall(r"^warning: (.+?): (.+)$", err, re.MULTILINE) == [
        ("half.wav", "The file breaks off before its end: what comes after that is missing.")
    ]
    assert (files / "two.wav.txt").read_text() == "20 21 22\n"
    assert (files / "half.wav.txt").read_text().startswith("10")
    assert not (files / "notes.wav.txt").exists()


@pytest.mark.usefixtures("scribes")
def test_an_engine_that_breaks_costs_its_files_and_no_others(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "bad.wav").write_bytes(encode(numbered(1, BREAK, *[1] * 40)))
    status, _, err = ran(capsys, "bad.wav", "one.wav", "two.wav", "--stt-slots", "1")
    assert status == 1
    assert re.findall(r"^error: (.+?):", err, re.MULTILINE) == ["bad.wav"]
    assert (files / "two.wav.txt").read_text() == "20 21 22\n"


@pytest.mark.usefixtures("scribes")
def test_a_transcript_that_cannot_be_written(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (files / "one.wav.txt").write_text("from before")

    def full(path: Path, *_: object, **__: object) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    status, _, err = ran(capsys, "one.wav", "two.wav")
    assert status == 1
    assert "error: one.wav.txt: cannot be written: No space left on device.\nhint: " in err
    assert (files / "one.wav.txt").read_text() == "from before"
    assert not list(files.glob("*.part"))


def test_without_a_model_there_is_a_hint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = ran(capsys, str(tmp_path / "a.wav"))
    assert status == 1
    assert err.startswith("error: There is no model to transcribe with.\nhint: Name one: --stt kyutai/stt-1b-en_fr")


@pytest.mark.parametrize("arguments", [(), ("a.wav", "--format", "doc"), ("a.wav", "--stt-slots")])
def test_a_wrong_command_line(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["transcribe", *arguments])
    assert caught.value.code == 2
    assert re.match(r"error: .+\nhint: rtc-server transcribe --help ", capsys.readouterr().err)


@contextlib.asynccontextmanager
async def terminal() -> AsyncIterator[tuple[Any, io.BytesIO]]:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        seen = io.BytesIO()
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, lambda: seen.write(os.read(ours, 65536)))
        try:
            yield stream, seen
        finally:
            loop.remove_reader(ours)
            os.close(ours)


async def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "_REDRAW_S", 0.0)
    async with terminal() as (stream, seen):
        with recordings.Bar(2, stream).shown() as bar:
            bar.show(Path("a"), Progress((), 5.0, 10.0))
            bar.show(Path("b"), Progress((), 5.0, None))
            bar.done(Path("b"))
        await until(lambda: seen.getvalue().endswith(b"\r\x1b[K"))
        lines = seen.getvalue().decode().split("\r")
    assert "25%" in lines[1]
    assert "50%" in lines[2]
    assert lines[3].startswith("████████████████░░░░░░░░  67%  0:00:10, ")
    assert "× real time, 1 of 2 files" in lines[3]


def test_elsewhere_there_is_none() -> None:
    stream = io.StringIO()
    with recordings.Bar(1, stream).shown() as bar:
        bar.show(Path("a"), Progress((), 5.0, 10.0))
        bar.done(Path("a"))
        bar.clear()
    assert stream.getvalue() == ""
