"""Files are read in processes of their own: what becomes of one costs its file alone, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from typing import IO, Any

import numpy as np
import psutil
import pytest

from lab.inputs.files import encode, file_with, noise
from lab.inputs.mutations import claims_gigabytes
from lab.waiting import until
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.decoding.findings import Notice
from rtc_server.decoding.media_file import MediaFile
from rtc_server.decoding.reader import Decoders, MediaReader
from rtc_server.decoding.wire import Limits
from rtc_server.errors import FileUnreadable, NotAudio, Overloaded, ServerError
from rtc_server.system.child_process import ChildProcess

LONG = encode(np.broadcast_to(np.float32(0), (3600 * 2000,)), "flac", "flac", 2000)
"""An hour in some hundred kilobytes."""


@contextlib.asynccontextmanager
async def decoding(limits: Limits | None = None) -> AsyncIterator[Decoders]:
    decoders = Decoders(limits)
    try:
        yield decoders
    finally:
        nursery = nursery_of(decoders)
        await decoders.close()
        assert nursery is None or not nursery.is_running()


@pytest.fixture
async def decoders() -> AsyncIterator[Decoders]:
    async with decoding() as made:
        await made.warm()
        yield made


def nursery_of(decoders: Decoders) -> psutil.Process | None:
    nursery = decoders._nursery
    if nursery is None or nursery._process is None:
        return None
    return psutil.Process(nursery._process.pid)


def forks_of(decoders: Decoders) -> list[psutil.Process]:
    nursery = nursery_of(decoders)
    return [] if nursery is None else [fork for fork in nursery.children() if fork.status() != psutil.STATUS_ZOMBIE]


async def read(decoders: Decoders, data: bytes) -> tuple[FloatArray, MediaReader]:
    with file_with(data) as file:
        async with MediaReader(decoders, file) as reader:
            return np.concatenate([block async for block in reader]), reader


async def refusal(decoders: Decoders, data: bytes) -> ServerError:
    with pytest.raises(ServerError) as caught:
        await read(decoders, data)
    return caught.value


async def test_a_reader_gives_what_the_file_holds(decoders: Decoders) -> None:
    data = encode(noise(4))
    pcm, reader = await read(decoders, data)
    np.testing.assert_array_equal(pcm, np.concatenate(list(MediaFile(io.BytesIO(data)).blocks())))
    assert reader.duration_s == pytest.approx(4)
    assert reader.notices == ()
    cut, reader = await read(decoders, data[:-50_000])
    assert cut.size < pcm.size
    assert reader.notices == (Notice.CUT_OFF,)


async def test_many_at_a_time_are_each_its_own(decoders: Decoders) -> None:
    files = [encode(noise(2, seed)) for seed in range(6)]
    together = await asyncio.gather(*(read(decoders, data) for data in files))
    for data, (pcm, _) in zip(files, together, strict=True):
        np.testing.assert_array_equal(pcm, np.concatenate(list(MediaFile(io.BytesIO(data)).blocks())))


async def test_where_the_server_reads_the_file_is_its_own_affair(decoders: Decoders) -> None:
    with file_with(encode(noise(4))) as file:
        file.seek(1234)
        async with MediaReader(decoders, file) as reader:
            assert sum([block.size async for block in reader]) == 4 * MODEL_RATE_HZ
        assert file.tell() == 1234


async def test_what_is_no_audio_is_refused_with_the_reason(decoders: Decoders) -> None:
    assert (await refusal(decoders, b"")).message == "The file is empty."
    error = await refusal(decoders, b"garbage" * 1000)
    assert isinstance(error, NotAudio)
    assert (error.code, error.http_status) == ("not_audio", 422)


async def test_a_reader_is_little_ahead_and_waits(decoders: Decoders) -> None:
    """Two hours are in nobody's memory: a pipe, and a buffer of this side, hold what is not asked for."""
    with file_with(LONG) as file:
        async with MediaReader(decoders, file) as reader:
            await anext(reader)
            (fork,) = forks_of(decoders)
            await until(lambda: fork.status() == psutil.STATUS_SLEEPING)
            spent = fork.cpu_times().user
            for _ in range(20):
                await asyncio.sleep(0)
            assert fork.cpu_times().user - spent < 1.0
            assert reader._job is not None
            assert len(reader._job._reader._buffer) < 512 * 1024  # type: ignore[attr-defined]
            assert fork.memory_info().rss < 200 * 2**20


async def test_a_file_that_claims_gigabytes_gets_none(decoders: Decoders) -> None:
    data = claims_gigabytes()
    assert len(data) <= 72
    errors = await asyncio.gather(*(refusal(decoders, data) for _ in range(6)))
    assert {error.http_status for error in errors} == {422}
    nursery = nursery_of(decoders)
    assert nursery is not None
    assert nursery.memory_info().rss < 200 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to RLIMIT_AS")
async def test_memory_is_bounded() -> None:
    async with decoding(Limits(memory_mib=1)) as decoders:
        error = await refusal(decoders, encode(noise(60, rate_hz=96_000), "flac", "flac", 96_000))
        assert isinstance(error, FileUnreadable)
        assert (error.code, error.http_status, error.retryable) == ("file_unreadable", 422, False)
        decoders.limits = Limits()
        assert (await read(decoders, encode(noise(1))))[0].size == MODEL_RATE_HZ


async def test_the_time_of_a_processor_is_bounded() -> None:
    """In whatever code the decoder is."""
    async with decoding(Limits(cpu_s=0.05, cpu_share=0.0)) as decoders:
        error = await refusal(decoders, LONG)
        assert isinstance(error, FileUnreadable)
        assert error.message == "Decoding the file takes too long for the audio that is in it."
        await until(lambda: not forks_of(decoders))


async def test_a_decoder_that_stands_still_is_ended() -> None:
    async with decoding(Limits(stall_s=0.5)) as decoders:
        await decoders.warm()
        with file_with(LONG) as file:
            async with MediaReader(decoders, file) as reader:
                await anext(reader)
                (fork,) = forks_of(decoders)
                fork.suspend()
                with pytest.raises(FileUnreadable):
                    async for _ in reader:
                        pass
        await until(lambda: not forks_of(decoders))


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
async def test_a_decoder_that_breaks_down_costs_its_file_alone(decoders: Decoders, number: int) -> None:
    with file_with(LONG) as file, file_with(LONG) as other:
        async with MediaReader(decoders, file) as reader:
            await anext(reader)
            (fork,) = forks_of(decoders)
            async with MediaReader(decoders, other) as second:
                await anext(second)
                os.kill(fork.pid, number)
                with pytest.raises(FileUnreadable) as caught:
                    async for _ in reader:
                        pass
                assert caught.value.http_status == 422
                await anext(second)
    await until(lambda: not forks_of(decoders))


async def test_the_loss_of_the_nursery_is_told_and_it_comes_back(decoders: Decoders) -> None:
    nursery = nursery_of(decoders)
    assert nursery is not None
    with file_with(LONG) as file:
        async with MediaReader(decoders, file) as reader:
            await anext(reader)
            (fork,) = forks_of(decoders)
            nursery.kill()
            with pytest.raises(Overloaded):
                async for _ in reader:
                    pass
    await until(lambda: not fork.is_running() or fork.status() == psutil.STATUS_ZOMBIE)
    assert (await read(decoders, encode(noise(1))))[0].size == MODEL_RATE_HZ
    assert nursery_of(decoders) != nursery


# What it has, and what it leaves


async def test_a_decoder_has_no_secrets_and_nothing_of_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTC_SERVER_TURN_SECRET", "hush")
    async with decoding() as decoders:
        with file_with(LONG) as file:
            async with MediaReader(decoders, file) as reader:
                await anext(reader)
                (fork,) = forks_of(decoders)
                assert "hush" not in str(fork.environ())
                assert fork.num_fds() == 5
                assert not fork.net_connections()
                if sys.platform == "linux":
                    assert fork.rlimit(resource.RLIMIT_NOFILE) == (5, 5)
                    assert fork.rlimit(resource.RLIMIT_FSIZE) == (0, 0)
                    assert fork.rlimit(resource.RLIMIT_AS)[0] < 2**30
                assert fork.num_threads() == 1


async def test_signals_to_the_group_are_the_servers(decoders: Decoders) -> None:
    """A terminal and a service manager send them to all of its processes."""
    nursery = nursery_of(decoders)
    assert nursery is not None
    with file_with(encode(noise(30))) as file:
        async with MediaReader(decoders, file) as reader:
            for process in (nursery, *forks_of(decoders)):
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    process.send_signal(number)
            assert sum([block.size async for block in reader]) == 30 * MODEL_RATE_HZ


async def test_a_reader_that_is_given_up_reads_no_more(decoders: Decoders) -> None:
    """The file may be closed right after it."""

    async def read_all(file: IO[bytes]) -> int:
        async with MediaReader(decoders, file) as reader:
            return sum([block.size async for block in reader])

    with file_with(LONG) as file:
        reading = asyncio.create_task(read_all(file), name="reading")
        await until(lambda: forks_of(decoders))
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not forks_of(decoders)


async def test_nothing_is_left_behind(decoders: Decoders) -> None:
    process = psutil.Process()
    await read(decoders, encode(noise(1)))
    nursery = nursery_of(decoders)
    assert nursery is not None
    before = process.num_fds(), nursery.num_fds()
    for _ in range(20):
        await read(decoders, encode(noise(0.2)))
        await refusal(decoders, b"garbage" * 100)
    assert (process.num_fds(), nursery.num_fds()) == before
    assert not nursery.children()


async def test_a_server_that_ends_takes_its_decoders_with_it() -> None:
    """Killed, as nothing can be tidied up after."""
    code = (
        "import asyncio, sys, tempfile\n"
        "from rtc_server.decoding.reader import Decoders, MediaReader\n"
        "async def main():\n"
        "    async with MediaReader(Decoders(), open(sys.argv[1], 'rb')) as reader:\n"
        "        await anext(reader)\n"
        "        print('reading', flush=True)\n"
        "        await asyncio.sleep(100)\n"
        "asyncio.run(main())\n"
    )
    with file_with(LONG) as file:
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, f"/proc/self/fd/{file.fileno()}"),
            pass_fds=[file.fileno()],
            stdout=asyncio.subprocess.PIPE,
        )
        assert server.stdout is not None
        assert await server.stdout.readline() == b"reading\n"
        children = psutil.Process(server.pid).children(recursive=True)
        assert len(children) == 2
        server.kill()
        await server.wait()
        await until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))


async def test_a_signal_to_the_whole_group_never_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even in the moment in which it starts: what a Ctrl-C means is the server's to say."""
    made: list[int] = []

    class Interrupted(ChildProcess):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            made.append(self.pid)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(self.pid, number)

    monkeypatch.setattr("rtc_server.decoding.reader.ChildProcess", Interrupted)
    async with decoding() as decoders:
        pcm, _ = await read(decoders, encode(noise(1)))
        assert pcm.size == MODEL_RATE_HZ
        assert len(made) == 1
