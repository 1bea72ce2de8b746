"""A speaker is translated while they speak by a row of their own of a model, as long as a listener is there for it; not
twice, and where there is no row, by utterances. The model is a tiny random Hibiki."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pytest
import pytest_asyncio

from lab.engine_process import engine_process, key_file
from lab.waiting import until
from rtc_server.audio import FRAME_MS, FRAME_SAMPLES, FloatArray, level_dbfs, silence
from rtc_server.config import Settings
from rtc_server.engine.client import EngineClient
from rtc_server.engine.engine import Engine
from rtc_server.engine.model import ModelInfo, ServiceKind
from rtc_server.errors import ModelLoadError
from rtc_server.metrics import Metrics
from rtc_server.models.tiny import write_tiny_checkpoint
from rtc_server.protocols.events import SpeechEnded, SpeechStarted, Word
from rtc_server.protocols.rooms import Playing, RoomMessage, RoomSettings
from rtc_server.rooms.interpreter import Interpreter
from rtc_server.rooms.lane import Lane, Limits
from rtc_server.rooms.lobby import Lobby
from rtc_server.rooms.member import Member
from rtc_server.rooms.simultaneous import RETRY_S, Simultaneous
from rtc_server.rooms.speaker import Speaker
from rtc_server.services import make_simultaneous
from rtc_server.translation.client import Translator
from tests.support import engines
from tests.support.seats import Client, seated
from tests.support.translators import count, fake, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEVER: Final = 1_000_000
SETTLES_MS: Final = 1_600
"""After so long all words of what was said are there, and it is cut."""


class Recogniser:
    """What the lobby asks of one: in which languages it writes, and how late."""

    info = ModelInfo(
        "scribe", ServiceKind.TRANSCRIBE, 4, "cpu", speaks=False, writes=True, delay_s=0.4, languages=("en", "pt")
    )


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Kitchen:
    """A room in which Portuguese is translated while it is spoken, and a clock that goes with its microphones."""

    def __init__(self, engine: EngineClient, translator: Translator, limits: Limits) -> None:
        self.clock = Clock()
        self.engine = engine
        self.translator = translator
        self.metrics = Metrics()
        self.lobby = Lobby(
            *("0-0", Interpreter(translator, Metrics()), [cast("Engine", Recogniser())], self.metrics, 10),
            simultaneous=Simultaneous(engine, self.metrics, {"pt": "en"}, "", limits),
            clock=self.clock,
        )
        self.room = self.lobby.create("Kitchen", private=False)
        self.speakers: list[Speaker] = []

    def seat(self, name: str, language: str) -> tuple[Member, Client]:
        return seated(self.room, name, language)

    def speaker(self, name: str, language: str = "pt") -> tuple[Member, Client, Speaker]:
        member, client = self.seat(name, language)
        speaker = Speaker(self.lobby, self.room, member)
        self.speakers.append(speaker)
        return member, client, speaker

    async def pass_frames(
        self, frames: int, *speakers: Speaker, pcm: FloatArray | None = None, answered: bool = True
    ) -> None:
        """Of all these microphones, no faster than the model hears them; if it does."""
        for _ in range(frames):
            self.clock.now += FRAME_MS / 1000
            for speaker in speakers:
                speaker.on_frame(silence(FRAME_SAMPLES) if pcm is None else pcm)
            if answered:
                await until(lambda: all(stream.in_flight < 2 for stream in self.engine.streams), "the model's answer")

    async def until_interpreted(self, speaker: Speaker) -> Lane:
        """Until this speaker's lane has begun."""
        for _ in range(2000):
            await self.pass_frames(1, speaker)
            lane = speaker._lane
            if lane is not None and lane.covers(speaker.heard_ms - FRAME_MS):
                return lane
            await asyncio.sleep(0.01)
        raise AssertionError("no lane")

    async def says(self, speaker: Speaker, text: str, answered: bool = True) -> None:
        """Word after word, what the detector tells of it, and the pause in which it is cut."""
        speaker.on_event(SpeechStarted(speaker.heard_ms))
        for word in text.split():
            began = speaker.heard_ms
            await self.pass_frames(3, speaker, pcm=noise(), answered=answered)
            speaker.on_event(Word(word, began, speaker.heard_ms))
        speaker.on_event(SpeechEnded(speaker.heard_ms))
        await self.pass_frames(SETTLES_MS // FRAME_MS, speaker, answered=answered)

    async def until_translated(self, client: Client, text: str) -> None:
        """Until an utterance is there, from its last letter to its first."""
        await until(
            lambda: (text[::-1], "ready") in [(told, state) for _, told, state in client.messages], "the utterance"
        )

    @property
    def translated(self) -> float:
        return count(self.translator._metrics, "rtc_translations_total", outcome="done")


def noise() -> FloatArray:
    return np.random.default_rng(0).normal(0, 0.1, FRAME_SAMPLES).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-hibiki", "hibiki")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(checkpoint: Path) -> AsyncIterator[EngineClient]:
    """With one row."""
    async with loaded(checkpoint) as client:
        yield client


@contextlib.asynccontextmanager
async def loaded(checkpoint: Path, **elsewhere: Any) -> AsyncIterator[EngineClient]:
    """With one row, unless it is ``elsewhere``."""
    settings = Settings(
        simultaneous=str(checkpoint),
        simultaneous_pairs=("pt=en",),
        simultaneous_slots=1,
        device="cpu",
        threads=1,
        seed=1,
        allow_slow=True,
        **elsewhere,
    )
    made = make_simultaneous(settings, Metrics())
    assert made is not None
    client, what = made
    assert what.targets == {"pt": "en"}
    async with engines.running(client):
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def translator() -> AsyncIterator[Translator]:
    async with running(fake(factory="Vocal")) as made:
        yield made


@contextlib.asynccontextmanager
async def kitchen(engine: EngineClient, translator: Translator, limits: Limits | None = None) -> AsyncIterator[Kitchen]:
    """Afterwards there is no row that is not given back."""
    made = Kitchen(engine, translator, limits or Limits())
    try:
        yield made
    finally:
        for speaker in made.speakers:
            speaker.finish()
        await made.lobby.simultaneous.close()
        await made.lobby.interpreter.close()
        await until(lambda: engine.slots_used == engine.slots_asked_for == 0, "every row")


async def test_a_row_is_taken_when_a_listener_comes_and_given_back_when_they_leave(
    engine: EngineClient, translator: Translator
) -> None:
    async with kitchen(engine, translator) as where:
        _, _, speaker = where.speaker("Ana")
        where.seat("Ute", "de")
        await where.pass_frames(20, speaker)
        assert engine.slots_used == 0
        ann, _ = where.seat("Ann", "en")
        await where.until_interpreted(speaker)
        assert engine.slots_used == 1
        where.room.leave(ann, where.clock())
        await where.pass_frames(10, speaker)
        assert engine.slots_used == 0


async def test_a_listener_who_is_cut_off_comes_back_to_the_same_row(
    engine: EngineClient, translator: Translator
) -> None:
    async with kitchen(engine, translator) as where:
        _, _, speaker = where.speaker("Ana")
        ann, client = where.seat("Ann", "en")
        lane = await where.until_interpreted(speaker)
        where.room.stand_up(ann, client, where.clock())
        await where.pass_frames(20, speaker)
        where.room.sit(ann, Client(), where.clock())
        await where.pass_frames(20, speaker)
        assert speaker._lane is lane


async def test_one_who_changes_language_or_leaves_gives_the_row_back(
    engine: EngineClient, translator: Translator
) -> None:
    async with kitchen(engine, translator) as where:
        ana, _, speaker = where.speaker("Ana")
        where.seat("Ann", "en")
        await where.until_interpreted(speaker)
        where.room.change(ana, RoomSettings(language="de"), where.clock())
        await where.pass_frames(1, speaker)
        assert engine.slots_used == 0
        where.room.change(ana, RoomSettings(language="pt"), where.clock())
        await where.until_interpreted(speaker)
        speaker.finish()
        assert engine.slots_used == 0


async def test_sound_and_words_come_while_the_speaker_still_speaks(
    engine: EngineClient, translator: Translator
) -> None:
    async with kitchen(engine, translator) as where:
        ana, own, speaker = where.speaker("Ana")
        ann, client = where.seat("Ann", "en")
        ute, other = where.seat("Ute", "de")
        await where.until_interpreted(speaker)
        speaker.on_event(SpeechStarted(speaker.heard_ms))
        heard: list[FloatArray] = []
        for _ in range(100):
            await where.pass_frames(1, speaker)
            heard.append(where.room.hear(ann, where.clock()))
            assert not where.room.hear(ute, where.clock()).any()
        assert max(map(level_dbfs, heard)) > -40
        told = client.of(RoomMessage)
        assert (told[0].state, told[0].grows, told[0].user, told[0].language) == ("pending", True, ana.id, "pt")
        grown = max(([each.text for each in told if each.id == first.id] for first in told), key=len)
        assert len(grown) > 2
        assert all(after.startswith(before) for before, after in itertools.pairwise(grown))
        assert Playing(told[0].id, "started") in client.events
        assert own.of(RoomMessage) == other.of(RoomMessage) == []


async def test_a_message_ends_at_the_models_pause_and_is_heard_again(
    engine: EngineClient, translator: Translator
) -> None:
    async with kitchen(engine, translator, Limits(quiet=4)) as where:
        _, _, speaker = where.speaker("Ana")
        _, client = where.seat("Ann", "en")
        await where.until_interpreted(speaker)
        ended = []
        for _ in range(400):
            await where.pass_frames(1, speaker, pcm=noise())
            ended = [each for each in client.of(RoomMessage) if each.state == "ready"]
            if ended:
                break
        assert ended, "no message has ended"
        last = ended[0]
        assert last.text
        assert not last.grows
        assert last.spoken_ms >= 4 * FRAME_MS
        assert Playing(last.id, "ended") in client.events
        message = where.room.message(last.id)
        assert message is not None
        assert last.audio is not None
        sound = await where.lobby.interpreter.sound_of(where.room, message, "en")
        assert sound.size == last.spoken_ms * 24


async def test_one_who_does_not_pause_is_read_in_messages_that_end_between_words(
    engine: EngineClient, translator: Translator
) -> None:
    async with kitchen(engine, translator, Limits(longest=25, quiet=NEVER)) as where:
        _, _, speaker = where.speaker("Ana")
        _, client = where.seat("Ann", "en")
        await where.until_interpreted(speaker)
        await where.pass_frames(150, speaker, pcm=noise())
        ended = [each for each in client.of(RoomMessage) if each.state == "ready"]
        assert len(ended) >= 2
        assert all(25 * FRAME_MS <= each.spoken_ms <= 50 * FRAME_MS for each in ended)


async def test_what_is_interpreted_is_not_translated_once_more_and_the_others_read_it_in_theirs(
    engine: EngineClient, translator: Translator
) -> None:
    async with kitchen(engine, translator, Limits(quiet=NEVER, longest=NEVER)) as where:
        _, own, speaker = where.speaker("Ana")
        _, client = where.seat("Ann", "en")
        _, ute = where.seat("Ute", "de")
        await where.until_interpreted(speaker)
        before = where.translated
        await where.says(speaker, "bom dia")
        await where.until_translated(ute, "bom dia")
        await where.pass_frames(60, speaker)
        assert where.translated == before + 1
        assert [each.original for each in own.of(RoomMessage)] == ["bom dia"]
        assert {each.grows for each in client.of(RoomMessage)} == {True}
        assert "bom dia" in client.of(RoomMessage)[-1].original
        newcomer, late = where.seat("Ben", "en")
        assert where.room.untranslated(newcomer) == []
        assert [each.id for each in late.of(RoomMessage)] == [client.of(RoomMessage)[-1].id]


async def test_one_for_whom_there_is_no_row_is_translated_by_utterances_until_there_is(
    engine: EngineClient, translator: Translator
) -> None:
    async with kitchen(engine, translator) as where:
        bia, _, first = where.speaker("Bia")
        _, _, second = where.speaker("Ana")
        _, client = where.seat("Ann", "en")
        await where.until_interpreted(first)
        await where.says(second, "bom dia")
        await where.until_translated(client, "bom dia")
        await until(lambda: count(where.metrics, "rtc_lanes_failed_total", code="server_full") == 1, "its refusal")
        first.finish()
        where.room.leave(bia, where.clock())
        where.clock.now += RETRY_S
        await where.until_interpreted(second)


async def test_speech_that_had_begun_before_is_an_utterances_to_its_end(
    engine: EngineClient, translator: Translator
) -> None:
    async with kitchen(engine, translator) as where:
        _, _, speaker = where.speaker("Ana")
        ann, client = where.seat("Ann", "en")
        speaker.on_event(SpeechStarted(0))
        await where.pass_frames(10, speaker)
        await until(lambda: engine.slots_used == 1, "a row")
        for _ in range(20):
            await where.pass_frames(1, speaker)
            assert not where.room.hear(ann, where.clock()).any()
        speaker.on_event(Word("bom", 80, 400))
        speaker.on_event(SpeechEnded(speaker.heard_ms))
        await where.pass_frames(SETTLES_MS // FRAME_MS, speaker)
        await where.until_translated(client, "bom")
        await where.until_interpreted(speaker)


async def test_an_old_row_is_wiped_in_a_pause_and_not_before(engine: EngineClient, translator: Translator) -> None:
    async with kitchen(engine, translator, Limits(oldest=40, pause=5, quiet=2)) as where:
        _, _, speaker = where.speaker("Ana")
        where.seat("Ann", "en")
        lane = await where.until_interpreted(speaker)
        speaker.on_event(SpeechStarted(speaker.heard_ms))
        await where.pass_frames(80, speaker, pcm=noise())
        assert lane.resets == 0
        speaker.on_event(SpeechEnded(speaker.heard_ms))
        for _ in range(100):
            await where.pass_frames(1, speaker)
            if lane.resets:
                break
        assert lane.resets == 1
        await where.pass_frames(20, speaker)
        assert lane.resets == 1
        assert speaker._lane is lane


@pytest.mark.slow
async def test_an_engine_that_dies_leaves_its_speakers_to_utterances_and_takes_them_again(
    checkpoint: Path, translator: Translator
) -> None:
    async with loaded(checkpoint) as engine, kitchen(engine, translator) as where:
        _, _, speaker = where.speaker("Ana")
        _, client = where.seat("Ann", "en")
        lane = await where.until_interpreted(speaker)
        for _ in range(100):
            await where.pass_frames(1, speaker, pcm=noise())
            if client.messages:
                break
        begun = client.of(RoomMessage)[0].id
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: lane.failed, "news of its death")
        assert (begun, "ready") in [(number, state) for number, _, state in client.messages]
        await where.says(speaker, "bom dia")
        await where.until_translated(client, "bom dia")
        await until(lambda: engine.ready, "another engine", timeout_s=60)
        where.clock.now += RETRY_S
        await where.until_interpreted(speaker)
        assert count(where.metrics, "rtc_lanes_failed_total", code="engine_failed") == 1


async def test_what_was_said_and_the_model_had_not_come_to_when_its_engine_died_is_an_utterances(
    checkpoint: Path, translator: Translator
) -> None:
    async with loaded(checkpoint) as engine, kitchen(engine, translator, Limits(quiet=NEVER, longest=NEVER)) as where:
        _, own, speaker = where.speaker("Ana")
        ann, client = where.seat("Ann", "en")
        _, ute = where.seat("Ute", "de")
        lane = await where.until_interpreted(speaker)
        await where.says(speaker, "bom dia")
        await where.until_translated(ute, "bom dia")
        before = where.translated
        assert "bom dia" not in [each.original for each in client.of(RoomMessage) if not each.grows]
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: lane.failed, "news of its death")
        await where.pass_frames(1, speaker)
        await where.until_translated(client, "bom dia")
        assert where.translated == before + 1
        assert [each.original for each in own.of(RoomMessage)] == ["bom dia"]
        (spoken,) = {each.id for each in client.of(RoomMessage) if each.text == "aid mob"}
        await where.pass_frames(1, speaker)
        assert where.room.hear(ann, where.clock()).any()
        assert Playing(spoken, "started") in client.events


@pytest.mark.timeout(300)
async def test_an_engine_elsewhere_that_is_drained_takes_no_other_speaker_and_leaves_those_it_has_to_utterances(
    checkpoint: Path, translator: Translator, tmp_path: Path
) -> None:
    model = ("--simultaneous", str(checkpoint), "--simultaneous-slots", "2", "--device", "cpu", "--threads", "1")
    options = ("--engine-service", "simultaneous", *model, "--allow-slow", "--drain-s", "600")
    async with engine_process(tmp_path, *options) as process:
        await process.wait_ready(120)
        at = {"engine_at": (f"simultaneous={process.address}",), "cluster_key": str(key_file(tmp_path))}
        async with loaded(checkpoint, **at) as engine, kitchen(engine, translator) as where:
            _, _, first = where.speaker("Ana")
            _, _, second = where.speaker("Bia")
            _, client = where.seat("Ann", "en")
            lane = await where.until_interpreted(first)
            process.process.terminate()
            await until(lambda: any("draining" in line for line in process.log), "the drain")
            for _ in range(1000):
                await where.pass_frames(1, second)
                if count(where.metrics, "rtc_lanes_failed_total", code="server_full"):
                    break
                if second._lane is not None and second._lane.open:  # it came before the drain
                    second.finish()
                await asyncio.sleep(0.01)
            assert count(where.metrics, "rtc_lanes_failed_total", code="server_full") == 1
            await where.says(first, "bom dia")
            assert (lane.failed, engine.slots_used) == (False, 1)
            process.process.terminate()
            await process.wait_exit()
            await until(lambda: lane.failed, "news of its end")
            await where.pass_frames(1, first, answered=False)
            await where.until_translated(client, "bom dia")
            async with engine_process(tmp_path, *options, listen=process.address) as another:
                await another.wait_ready(120)
                await until(lambda: engine.ready, "the engine in its place")
                where.clock.now += RETRY_S
                await where.until_interpreted(first)


async def test_what_is_said_to_an_engine_that_has_fallen_silent_is_an_utterances(
    checkpoint: Path, translator: Translator
) -> None:
    async with loaded(checkpoint) as engine, kitchen(engine, translator) as where:
        _, _, speaker = where.speaker("Ana")
        _, client = where.seat("Ann", "en")
        lane = await where.until_interpreted(speaker)
        pid = engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            await where.says(speaker, "bom dia", answered=False)
            assert lane.covers(speaker.heard_ms)
            await until(lambda: lane.failed, "news of its silence")
            await where.pass_frames(1, speaker, answered=False)
            await where.until_translated(client, "bom dia")
            await where.says(speaker, "boa noite", answered=False)
            await where.until_translated(client, "boa noite")
        finally:
            os.kill(pid, signal.SIGCONT)
        await until(lambda: engine.ready, "its answer")
        where.clock.now += RETRY_S
        assert await where.until_interpreted(speaker) is not lane, "the only row was given back"
        assert engine.pid == pid
        assert count(where.metrics, "rtc_lanes_failed_total", code="engine_unavailable") == 1


async def test_what_the_model_has_said_is_not_an_utterance_when_its_engine_dies_later(
    checkpoint: Path, translator: Translator
) -> None:
    async with loaded(checkpoint) as engine, kitchen(engine, translator, Limits(quiet=2)) as where:
        _, own, speaker = where.speaker("Ana")
        _, client = where.seat("Ann", "en")
        lane = await where.until_interpreted(speaker)
        await where.says(speaker, "bom dia")
        for _ in range(400):
            await where.pass_frames(1, speaker)
            if not lane._unsaid:
                break
        before = where.translated
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: lane.failed, "news of its death")
        await where.says(speaker, "boa noite")
        await where.until_translated(client, "boa noite")
        assert where.translated == before + 1
        assert [each.original for each in own.of(RoomMessage)] == ["bom dia", "boa noite"]
        assert "aid mob" not in [text for _, text, _ in client.messages]


async def test_what_a_speaker_says_last_is_an_utterances_if_the_model_has_not_said_it(
    engine: EngineClient, translator: Translator
) -> None:
    async with kitchen(engine, translator, Limits(quiet=NEVER, longest=NEVER)) as where:
        ana, _, speaker = where.speaker("Ana")
        _, client = where.seat("Ann", "en")
        await where.until_interpreted(speaker)
        await where.says(speaker, "bom dia")
        speaker.finish()
        where.room.leave(ana, where.clock())
        await where.until_translated(client, "bom dia")
        assert not [each for each in where.room.messages if each.only and each.text_in("en") == ""]


async def test_what_no_listener_is_left_for_is_translated_for_the_one_who_comes_next(
    engine: EngineClient, translator: Translator
) -> None:
    async with kitchen(engine, translator, Limits(quiet=NEVER, longest=NEVER)) as where:
        _, _, speaker = where.speaker("Ana")
        ann, _ = where.seat("Ann", "en")
        await where.until_interpreted(speaker)
        await where.says(speaker, "bom dia")
        before = where.translated
        where.room.leave(ann, where.clock())
        await where.pass_frames(10, speaker)
        assert engine.slots_used == 0
        assert where.translated == before
        ben, client = where.seat("Ben", "en")
        where.lobby.catch_up(where.room, ben)
        await where.until_translated(client, "bom dia")


async def test_a_model_that_does_not_translate_is_refused(tmp_path: Path) -> None:
    async with loaded(write_tiny_checkpoint(tmp_path / "tiny-moshi", "moshi")) as engine:
        with pytest.raises(ModelLoadError, match="tiny-moshi: this model does not translate"):
            Simultaneous(engine, Metrics(), {"pt": "en"}).require_translates()
