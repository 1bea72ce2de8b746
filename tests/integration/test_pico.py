"""A conversation with the bundled model over WebRTC, and its memory when the connection is lost."""

from __future__ import annotations

import pytest

from lab.network.vanishing import vanish
from lab.pico.phrases import NUMBERS
from lab.pico.recogniser import Recogniser
from lab.sound.tones import Ear
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from rtc_server.sessions.state import SessionState
from tests.conftest import ON_ONE_LOOP
from tests.support.calls import text_of
from tests.support.script import Speaker

pytestmark = [pytest.mark.alone, ON_ONE_LOOP]


async def test_a_sum_is_answered_in_words_and_by_voice(pico: Server) -> None:
    speaker, ear = Speaker(), Ear()
    async with VoiceClient(f"http://127.0.0.1:{pico.port}", speaker, on_voice=ear) as client:
        await client.wait_for("connected")
        await until(lambda: ear.samples > 24_000, "a connection that carries sound")
        asked = ear.samples
        speaker.say("what is three plus four")
        await until(lambda: text_of(client) == "that is seven", "the answer in words")
        written = ear.samples
        await until(lambda: ear.samples > written + 36_000, "the answer's end")
        assert text_of(client) == "that is seven"
        assert Recogniser().hear(ear.since(asked)) == "that is seven"


async def test_a_count_survives_a_cut_of_the_connection(pico: Server) -> None:
    """The state of the model is the session's, not the connection's: no number is missing and none comes twice."""
    speaker = Speaker()
    async with VoiceClient(f"http://127.0.0.1:{pico.port}", speaker) as client:
        await client.wait_for("connected")
        speaker.say("count to twelve")
        await until(lambda: len(text_of(client).split()) >= 4, "a count")
        vanish(client)
        waiting = [SessionState.WAITING]
        await until(lambda: list(pico.registry.count_by_state().elements()) == waiting, "the loss to be noticed")
        assert len(text_of(client).split()) < 12
        await client.resume()
        await client.wait_for("connected", resumed=True)
        await until(lambda: text_of(client).endswith(NUMBERS[12]), "the end of the count", 20.0)
        assert text_of(client).split() == NUMBERS[1:13]
