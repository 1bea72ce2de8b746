"""What a client does wrong on its data channel, and with its data channels."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from lab.sound.tones import Ear, tone
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from tests.support.calls import assert_serves
from tests.support.leftovers import leaves_nothing
from tests.support.trouble import count_of

KB = 1000


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", "bad_message"),
        (b"\x00\xff", "bad_message"),
        (b'{"type": "ping"}', "bad_message"),
        (b"x" * 60 * KB, "message_too_large"),
        ("x" * 60 * KB, "message_too_large"),
        ("x" * 4097, "message_too_large"),
        ("é" * 2049, "message_too_large"),
        ("", "bad_message"),
        ("hello", "bad_message"),
        ("[]", "bad_message"),
        ("null", "bad_message"),
        ("{}", "bad_message"),
        ('{"type": "shout"}', "bad_message"),
        ('{"type": "connected"}', "bad_message"),
        ('{"type": 1}', "bad_message"),
        ('{"type": "ping", "volume": 1}', "bad_message"),
        ('{"type": "ping", "id": 1.5}', "bad_message"),
        ('{"type": "ping", "id": 9007199254740993}', "bad_message"),
        ('{"type": "ping", "id": "' + "x" * 65 + '"}', "bad_message"),
        ('{"type": "settings", "muted": 1}', "bad_message"),
        ('{"type": "settings", "stats_interval_ms": 249}', "bad_message"),
        ('{"type": "settings", "stats_interval_ms": 10001}', "bad_message"),
        ("[" * 4096, "bad_message"),
    ],
    ids=lambda value: ascii(value[:30]),
)
async def test_a_bad_message_is_answered_and_changes_nothing(
    server: Server, base_url: str, message: str | bytes, code: str
) -> None:
    async with leaves_nothing(server), VoiceClient(base_url) as client:
        await client.wait_for("connected")
        client.send(message)
        error = await client.wait_for("error")
        assert set(error) == {"type", "time_ms", "seq", "code", "message", "retryable"}
        assert (error["code"], error["retryable"]) == (code, False)
        client.send({"type": "ping", "id": "still here"})
        await client.wait_for("pong", id="still here")


async def test_too_many_messages_are_refused_until_there_is_room_again(server: Server, base_url: str) -> None:
    async with leaves_nothing(server), VoiceClient(base_url) as client:
        await client.wait_for("connected")
        began = time.monotonic()
        for number in range(140):  # more than has room in the seconds that a busy machine takes to send them
            client.send({"type": "ping", "id": number})
        error = await client.wait_for("error", code="rate_limited")
        assert error["retryable"] is True
        await until(lambda: count_of(client, "pong") + count_of(client, "error") == 140, "an answer to each")
        assert 50 <= count_of(client, "pong") <= 51 + 20 * (time.monotonic() - began)  # as many come back each second
        await asyncio.sleep(0.5)  # ten tokens' worth
        client.send({"type": "ping", "id": "again"})
        await client.wait_for("pong", id="again")


@pytest.mark.parametrize("burst", [100, 1000])
async def test_a_hundred_bad_messages_are_abuse(server: Server, base_url: str, burst: int) -> None:
    """The client is told once and disconnected; ``disconnected`` is the last thing it hears."""
    async with leaves_nothing(server), VoiceClient(base_url) as client:
        await client.wait_for("connected")
        for _ in range(burst):
            client.send("nonsense")
        await client.wait_for(
            "disconnected", 30.0, reason="protocol_abuse"
        )  # what a peer may send in a second is bounded
        await asyncio.wait_for(client.closed.wait(), 10)
        assert client.events[-1]["type"] == "disconnected"
        assert count_of(client, "disconnected") == 1
        assert count_of(client, "error") == 99
    await assert_serves(base_url)


async def test_ninety_nine_bad_messages_are_not(server: Server, base_url: str) -> None:
    async with leaves_nothing(server), VoiceClient(base_url) as client:
        await client.wait_for("connected")
        for _ in range(99):
            client.send("nonsense")
        await until(lambda: count_of(client, "error") == 99, "99 errors")
        assert not client.closed.is_set()
        assert count_of(client, "disconnected") == 0


async def test_what_comes_after_the_goodbye_is_not_answered(server: Server, base_url: str) -> None:
    """``disconnected`` is the last message, whatever the client sends behind its ``bye``."""
    async with leaves_nothing(server), VoiceClient(base_url) as client:
        await client.wait_for("connected")
        client.send({"type": "bye"})
        for number in range(20):
            client.send({"type": "ping", "id": number})
            client.send("nonsense")
            client.send({"type": "reset"})
        await client.wait_for("disconnected", reason="bye")
        await asyncio.wait_for(client.closed.wait(), 10)
        assert client.events[-1]["type"] == "disconnected"


@pytest.mark.parametrize("label", ["telemetry", "text"])
async def test_another_channel_is_closed_and_the_session_goes_on(server: Server, base_url: str, label: str) -> None:
    """Of another name, or a second one of the same."""
    async with leaves_nothing(server), VoiceClient(base_url) as client:
        await client.wait_for("connected")
        other = client.pc.createDataChannel(label)
        await until(lambda: other.readyState == "closed", "the other channel's end")
        client.send({"type": "ping", "id": 1})
        await client.wait_for("pong", id=1)


async def test_a_channel_that_is_closed_may_be_opened_again(server: Server, base_url: str) -> None:
    """With or without a wait for the end of the first; no event is lost and none comes twice."""
    async with leaves_nothing(server), VoiceClient(base_url, tone(440)) as client:
        await client.wait_for("connected")
        for number, at_once in enumerate((True, False, True)):
            before = client.channel
            before.close()
            if not at_once:
                await until(lambda before=before: before.readyState == "closed", "the channel's end")
            client.channel = client.pc.createDataChannel("text")
            heard: list[dict[str, Any]] = []
            client.channel.on("message", lambda text, heard=heard: heard.append(json.loads(text)))
            client.channel.on("message", client._on_message)
            await until(lambda heard=heard: heard, "the first message")
            assert heard[0]["type"] == "connected"
            client.send({"type": "ping", "id": number})
            await client.wait_for("pong", id=number)
        client.send({"type": "bye"})
        await client.wait_for("disconnected", reason="bye")
        numbers = [event["seq"] for event in client.events if "seq" in event]
        assert numbers == list(range(1, len(numbers) + 1))


async def test_a_channel_that_is_closed_leaves_the_voice(server: Server, base_url: str) -> None:
    ear = Ear()
    async with leaves_nothing(server), VoiceClient(base_url, tone(440), on_voice=ear) as client:
        await client.wait_for("connected")
        client.channel.close()
        await until(lambda: client.channel.readyState == "closed", "the channel's end")
        await ear.until_voice()
        await ear.hear(1.0)
        await ear.until_voice()
