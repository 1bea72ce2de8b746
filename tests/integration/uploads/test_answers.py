"""Files that are sent to be transcribed: what comes back, in each form, and what is said of what was not heard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from lab.inputs.files import encode, noise
from tests.support.scribe import numbered
from tests.support.uploads import EVENTS, WORDS, Held, code_of, events_of, post, serving

pytestmark = pytest.mark.slow


async def test_json(server: Held) -> None:
    status, headers, text = await post(server.url, WORDS)
    assert status == 200
    assert headers["Content-Type"] == "application/json; charset=utf-8"  # type: ignore[index, call-overload]
    assert json.loads(text) == {
        "duration_ms": 400,
        "text": "1 2 3",
        "words": [
            {"text": "1", "start_ms": 0, "end_ms": 80},
            {"text": "2", "start_ms": 80, "end_ms": 160},
            {"text": "3", "start_ms": 320, "end_ms": 400},
        ],
        "turns": [{"start_ms": 0, "end_ms": 400, "text": "1 2 3"}],
    }


@pytest.mark.parametrize(
    ("form", "kind", "expected"),
    [
        ("txt", "text/plain", "1 2 3\n"),
        ("srt", "application/x-subrip", "1\n00:00:00,000 --> 00:00:01,000\n1 2 3\n"),
        ("vtt", "text/vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n1 2 3\n"),
    ],
)
async def test_other_formats(server: Held, form: str, kind: str, expected: str) -> None:
    status, headers, text = await post(f"{server.url}?format={form}", WORDS)
    assert (status, text) == (200, expected)
    assert headers["Content-Type"] == f"{kind}; charset=utf-8"  # type: ignore[index, call-overload]


@pytest.mark.parametrize("query", ["fromat=txt", "Format=txt", "format=txt&language=en"])
async def test_a_parameter_that_does_not_exist(server: Held, query: str) -> None:
    """Left out without a word, the answer would be of another kind than was asked for."""
    status, _, text = await post(f"{server.url}?{query}", WORDS)
    error = json.loads(text)["error"]
    assert (status, error["code"]) == (400, "bad_request")
    assert ("Did you mean format?" in error["message"]) is ("language" not in query)


@pytest.mark.parametrize("headers", [{"Content-Type": "audio/wav"}, {"Content-Type": "nonsense"}, {}])
async def test_any_type_any_container_any_framing(server: Held, headers: dict[str, str]) -> None:
    """The name and the type of a file say nothing."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(WORDS), 1000):
            yield WORDS[start : start + 1000]

    for body in (WORDS, chunks()):
        status, _, text = await post(f"{server.url}?format=txt", body, headers=headers)
        assert (status, text) == (200, "1 2 3\n")
    opus = encode(noise(1, rate_hz=48_000), "ogg", "libopus", 48_000)
    assert json.loads((await post(server.url, opus, headers=headers))[2])["duration_ms"] == pytest.approx(1000, abs=20)


async def test_turns_of_the_model() -> None:
    async with serving(heads=4) as server:
        assert (await post(f"{server.url}?format=txt", WORDS))[2] == "1 2\n\n3\n"


async def test_words_as_they_are_found() -> None:
    numbers = range(1, 200)
    async with (
        serving() as server,
        aiohttp.ClientSession() as http,
        http.post(server.url, data=encode(numbered(*numbers)), headers=EVENTS) as response,
    ):
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        first = await response.content.readuntil(b"\n\n")
        rest = await response.text()
    events = events_of(first.decode() + rest)
    assert [(name, event["text"]) for name, event in events[:-1]] == [("word", str(number)) for number in numbers]
    assert events[0][1] == {"text": "1", "start_ms": 0, "end_ms": 80}
    assert events[-1] == ("done", {"duration_ms": len(numbers) * 80, "words": len(numbers)})


async def test_files_at_a_time_are_as_each_alone(server: Held) -> None:
    bodies = [encode(numbered(*range(start, start + 60))) for start in (1, 101)]
    together = await asyncio.gather(*(post(server.url, body) for body in bodies))
    alone = [await post(server.url, body) for body in bodies]
    assert [text for _, _, text in together] == [text for _, _, text in alone]


async def test_a_file_that_breaks_off_is_heard_as_far_as_it_goes(server: Held) -> None:
    body = encode(numbered(*range(1, 101)))
    text = (await post(f"{server.url}?format=txt", body[: len(body) // 2]))[2]
    words, said = text.split("\n\n")
    assert 45 <= len(words.split()) <= 50
    assert said == "[The file breaks off before its end: what comes after that is missing.]\n"


async def test_who_waits_to_be_let_in_sends_when_the_door_is_open(server: Held) -> None:
    status, _, text = await post(f"{server.url}?format=txt", WORDS, expect100=True)
    assert (status, text) == (200, "1 2 3\n")


async def test_what_is_missing_is_told_in_every_form(server: Held) -> None:
    body = encode(numbered(*range(1, 101)))[:-5000]
    sentence = "The file breaks off before its end: what comes after that is missing."
    made = json.loads((await post(server.url, body))[2])
    assert made["warnings"] == [{"code": "cut_off", "message": sentence}]
    events = events_of((await post(server.url, body, headers=EVENTS))[2])
    assert [name for name, _ in events[-2:]] == ["warning", "done"]
    assert events[-2][1]["code"] == "cut_off"
    assert (await post(f"{server.url}?format=txt", body))[2].endswith(f"\n[{sentence}]\n")
    assert (await post(f"{server.url}?format=vtt", body))[2].endswith(f"\nNOTE {sentence}\n")
    assert "[The file breaks off" in (await post(f"{server.url}?format=srt", body))[2]


async def test_the_second_piece_of_a_recording_is_told_what_is_missing(server: Held) -> None:
    webm = encode(noise(2, rate_hz=48_000), "webm", "libopus", 48_000)
    status, _, text = await post(server.url, webm[webm.index(b"\x1f\x43\xb6\x75") :])
    assert (status, code_of(text)) == (422, "not_audio")
    assert "beginning of the recording is missing" in text
