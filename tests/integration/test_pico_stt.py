"""What a fresh installation transcribes with, over WebRTC: real words, with real times."""

from __future__ import annotations

import pytest

from lab.sound.tones import Ear
from lab.waiting import until
from rtc_server.client import VoiceClient
from tests.conftest import need_commands, running_server
from tests.support.script import Speaker

pytestmark = pytest.mark.alone


async def test_what_is_said_to_a_server_that_was_told_nothing_is_written_down() -> None:
    need_commands("espeak-ng")
    speaker, ear = Speaker(), Ear()
    async with running_server(*("--device", "cpu", "--slots", "1", "--stt-slots", "1")) as server:
        assert server.admission.default_service == "dialogue"
        url = f"http://127.0.0.1:{server.port}"
        async with VoiceClient(url, speaker, on_voice=ear, service="transcribe") as client:
            words = lambda: [event for event in client.events if event["type"] == "word"]  # noqa: E731
            await client.wait_for("connected")
            speaker.say("what colour is the sky")
            await until(lambda: len(words()) == 5, "five words")
            speaker.say("the captain lost his wallet")
            await until(lambda: len(words()) == 10, "five more")
            client.send({"type": "bye"})
            await client.wait_for("disconnected", reason="bye")
            heard = words()
    text = " ".join(word["text"] for word in heard)
    assert text == "what colour is the sky the captain lost his wallet"
    starts = [word["start_ms"] for word in heard]
    assert starts == sorted(starts)
    assert starts[4] - starts[0] == pytest.approx(900, abs=400), "as long as it takes to say it"
