"""One member's microphone: what is heard in it becomes utterances, in the language of its member, and no echo."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final, cast

import numpy as np

from lab.waiting import until
from rtc_server.audio import FRAME_MS, FRAME_SAMPLES, FloatArray, silence
from rtc_server.engine.engine import Engine
from rtc_server.engine.model import ModelInfo, ServiceKind
from rtc_server.metrics import Metrics
from rtc_server.protocols.events import SpeechEnded, SpeechStarted, Word, WordsComplete
from rtc_server.protocols.rooms import RoomMessage, RoomSettings, Speaking
from rtc_server.rooms.interpreter import Interpreter
from rtc_server.rooms.lobby import Lobby
from rtc_server.rooms.member import Member
from rtc_server.rooms.speaker import Speaker
from tests.support.seats import Client, seated
from tests.support.translators import fake, running

DELAY_S: Final = 0.4
SETTLES_MS: Final = 1_600
"""After so long all words of what was said are there, and it is cut."""


class Recogniser:
    """What the lobby asks of one: in which languages it writes, and how late."""

    info = ModelInfo(
        "scribe", ServiceKind.TRANSCRIBE, 4, "cpu", speaks=False, writes=True, delay_s=DELAY_S, languages=("en", "pt")
    )


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Kitchen:
    """A room, its lobby, and a clock that goes with its microphones."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.clock = Clock()
        recognisers = [cast("Engine", Recogniser())]
        self.lobby = Lobby("0-0", interpreter, recognisers, Metrics(), 10, clock=self.clock)
        self.room = self.lobby.create("Kitchen", private=False)

    def seat(self, name: str, language: str) -> tuple[Member, Client, Speaker]:
        member, client = seated(self.room, name, language)
        return member, client, Speaker(self.lobby, self.room, member)

    def pass_ms(self, milliseconds: int, *speakers: Speaker, pcm: FloatArray | None = None) -> None:
        """Of all these microphones."""
        for _ in range(milliseconds // FRAME_MS):
            self.clock.now += FRAME_MS / 1000
            for speaker in speakers:
                speaker.on_frame(silence(FRAME_SAMPLES) if pcm is None else pcm)


def kitchen() -> Kitchen:
    """In which nothing is translated."""
    return Kitchen(Interpreter(None, Metrics()))


@contextlib.asynccontextmanager
async def translated() -> AsyncIterator[Kitchen]:
    """With a translator that hears German itself."""
    async with running(fake(factory="Vocal")) as translator:
        made = Kitchen(Interpreter(translator, Metrics()))
        try:
            yield made
        finally:
            await made.lobby.close()


def says(where: Kitchen, speaker: Speaker, text: str, word_ms: int = 240, *others: Speaker) -> None:
    """Word after word, without a pause, and what the detector tells of it; words come when their model has them."""
    start = speaker.heard_ms
    speaker.on_event(SpeechStarted(start))
    for word in text.split():
        began = speaker.heard_ms
        where.pass_ms(word_ms, speaker, *others)
        speaker.on_event(Word(word, began, speaker.heard_ms))
    speaker.on_event(SpeechEnded(speaker.heard_ms))


def originals(client: Client) -> list[str]:
    told = {each.id: each.original for each in client.of(RoomMessage)}
    return list(told.values())


def test_what_is_said_is_one_message_at_the_pause_and_others_see_who_speaks() -> None:
    where = kitchen()
    _, client, _ = where.seat("Ana", "pt")
    ann, _, speaker = where.seat("Ann", "en")
    says(where, speaker, "good morning")
    assert originals(client) == []
    where.pass_ms(SETTLES_MS, speaker)
    assert originals(client) == ["good morning"]
    (message,) = client.of(RoomMessage)
    assert (message.user, message.language, message.kind, message.spoken_ms) == (ann.id, "en", "speech", 480)
    assert [(each.member, each.on) for each in client.of(Speaking)] == [(ann.id, True), (ann.id, False)]


def test_what_is_said_is_a_message_at_once_when_all_its_words_are_there() -> None:
    """It waits neither for the model's delay nor for the next frame."""
    where = kitchen()
    _, client, _ = where.seat("Ana", "pt")
    _, _, speaker = where.seat("Ann", "en")
    says(where, speaker, "good morning")
    speaker.on_event(WordsComplete(speaker.heard_ms - 80))
    assert originals(client) == []
    speaker.on_event(WordsComplete(speaker.heard_ms))
    assert originals(client) == ["good morning"]
    where.pass_ms(SETTLES_MS, speaker)
    assert originals(client) == ["good morning"]


def test_a_speaker_who_does_not_pause_is_read_while_they_speak() -> None:
    where = kitchen()
    _, client, _ = where.seat("Ana", "pt")
    _, _, speaker = where.seat("Ann", "en")
    words = [f"word{number}" for number in range(100)]
    speaker.on_event(SpeechStarted(0))
    for word in words:
        began = speaker.heard_ms
        where.pass_ms(240, speaker)
        speaker.on_event(Word(word, began, speaker.heard_ms - 80))
    assert len(originals(client)) >= 1
    speaker.on_event(SpeechEnded(speaker.heard_ms))
    where.pass_ms(SETTLES_MS, speaker)
    assert " ".join(originals(client)).split() == words, "nothing of it is lost, and nothing said twice"


def test_the_language_is_the_same_after_a_long_silence() -> None:
    where = kitchen()
    _, client, _ = where.seat("Bob", "en")
    _, _, speaker = where.seat("Ana", "pt")
    says(where, speaker, "bom dia")
    where.pass_ms(120_000, speaker)
    says(where, speaker, "boa noite")
    where.pass_ms(SETTLES_MS, speaker)
    assert [(each.language, each.original) for each in client.of(RoomMessage)] == [
        ("pt", "bom dia"),
        ("pt", "boa noite"),
    ]


def test_one_who_changes_language_has_said_the_beginning_in_the_former_one() -> None:
    where = kitchen()
    _, client, _ = where.seat("Bob", "en")
    member, _, speaker = where.seat("Ana", "pt")
    says(where, speaker, "bom dia")
    where.room.change(member, RoomSettings(language="en"), where.clock())
    says(where, speaker, "good morning")
    where.pass_ms(SETTLES_MS, speaker)
    assert originals(client) == ["bom dia", "good morning"]


def test_one_who_changes_language_while_speaking_goes_on_in_the_other() -> None:
    where = kitchen()
    _, client, _ = where.seat("Bob", "en")
    member, _, speaker = where.seat("Ana", "pt")
    speaker.on_event(SpeechStarted(0))
    for number, text in enumerate(("bom", "dia", "good", "morning")):
        if number == 2:
            where.room.change(member, RoomSettings(language="en"), where.clock())
        began = speaker.heard_ms
        where.pass_ms(240, speaker)
        speaker.on_event(Word(text, began, speaker.heard_ms))
    speaker.on_event(SpeechEnded(speaker.heard_ms))
    where.pass_ms(SETTLES_MS, speaker)
    said = [(each.language, each.original) for each in client.of(RoomMessage)]
    assert said == [("pt", "bom dia"), ("en", "good morning")]


def test_two_who_speak_at_once_are_both_read_in_the_order_in_which_they_ended() -> None:
    where = kitchen()
    _, client, _ = where.seat("Bob", "en")
    ann, _, first = where.seat("Ann", "en")
    ben, _, second = where.seat("Ben", "en")
    first.on_event(SpeechStarted(0))
    second.on_event(SpeechStarted(0))
    for number in range(4):
        began = first.heard_ms
        where.pass_ms(240, first, second)
        first.on_event(Word(f"ann{number}", began, first.heard_ms))
        second.on_event(Word(f"ben{number}", began, second.heard_ms))
    first.on_event(SpeechEnded(first.heard_ms))
    where.pass_ms(480, first, second)
    second.on_event(SpeechEnded(second.heard_ms))
    where.pass_ms(SETTLES_MS, first, second)
    read = [(each.user, each.original) for each in client.of(RoomMessage)]
    assert read == [(ann.id, "ann0 ann1 ann2 ann3"), (ben.id, "ben0 ben1 ben2 ben3")]


def test_the_echo_of_a_translation_is_not_said_and_an_answer_is() -> None:
    """Ana's loudspeaker says what Ann has said, into Ana's microphone."""
    where = kitchen()
    _, client, _ = where.seat("Ann", "en")
    ana, _, speaker = where.seat("Ana", "pt")
    ana.echoes.started("1", "Bom dia, como vai?", where.clock())
    where.pass_ms(160, speaker)
    says(where, speaker, "bom dia como vai")
    where.pass_ms(SETTLES_MS, speaker)
    ana.echoes.ended("1", where.clock())
    assert originals(client) == []
    says(where, speaker, "muito bem obrigada")
    where.pass_ms(SETTLES_MS, speaker)
    assert originals(client) == ["muito bem obrigada"]


def test_words_that_a_model_writes_in_noise_are_not_said() -> None:
    where = kitchen()
    _, client, _ = where.seat("Bob", "en")
    _, _, speaker = where.seat("Ann", "en")
    noise = np.random.default_rng(0).normal(0, 0.1, FRAME_SAMPLES).astype(np.float32)
    for number in range(20):
        where.pass_ms(240, speaker, pcm=noise)
        speaker.on_event(Word(f"word{number}", speaker.heard_ms - 240, speaker.heard_ms))
    where.pass_ms(SETTLES_MS, speaker)
    assert originals(client) == []


def test_one_who_hangs_up_in_the_middle_of_a_sentence_has_said_its_beginning() -> None:
    where = kitchen()
    _, client, _ = where.seat("Bob", "en")
    _, _, speaker = where.seat("Ann", "en")
    speaker.on_event(SpeechStarted(0))
    where.pass_ms(480, speaker)
    speaker.on_event(Word("good", 0, 240))
    speaker.on_event(Word("morning", 240, 480))
    speaker.finish()
    assert originals(client) == ["good morning"]


async def test_a_language_that_the_translator_hears_is_given_to_it_as_sound() -> None:
    """With a moment of what came before the detector heard it, and without what came after."""
    async with translated() as where:
        _, client, _ = where.seat("Bob", "en")
        _, _, speaker = where.seat("Ute", "de")
        tone = np.full(FRAME_SAMPLES, 0.5, np.float32)
        where.pass_ms(800, speaker)
        speaker.on_event(SpeechStarted(speaker.heard_ms))
        where.pass_ms(960, speaker, pcm=tone)
        ends = speaker.heard_ms
        where.pass_ms(240, speaker)
        speaker.on_event(SpeechEnded(ends))
        where.pass_ms(80, speaker)
        await until(lambda: client.of(RoomMessage)[-1].state == "ready", "what it has heard")
        assert client.of(RoomMessage)[-1].text == f"{(960 + 240) * 24} 0.50"


async def test_a_click_is_no_utterance() -> None:
    async with translated() as where:
        _, client, _ = where.seat("Bob", "en")
        _, _, speaker = where.seat("Ute", "de")
        where.pass_ms(800, speaker)
        speaker.on_event(SpeechStarted(speaker.heard_ms - 240))
        speaker.on_event(SpeechEnded(speaker.heard_ms))
        where.pass_ms(SETTLES_MS, speaker)
        assert originals(client) == []
        assert where.room.messages == []
