"""What was said as data and as files: the parts of the page that have no page, each alone."""

from __future__ import annotations

import json
import re
from typing import Any

from rtc_server.transcription import captions
from tests.support.page_modules import PageModules

LINE = 42
CUE_MS = 6_000

Words = list[dict[str, Any]]


def said(text: str, start_ms: int = 0, word_ms: int = 300, gap_ms: int = 100) -> Words:
    """The words of ``text``, one after the other."""
    step_ms = word_ms + gap_ms
    return [
        {"text": word, "start_ms": start_ms + at * step_ms, "end_ms": start_ms + at * step_ms + word_ms}
        for at, word in enumerate(text.split())
    ]


SPEECHES = [
    [said("Hello there.", 320)],
    [said("One sentence that fills a line, and a little more than that. Then another one follows it at once.")],
    [said("a"), said("b", 200), said("c", 3_723_004)],
    # Two words at the same moment, one without any length, and a pause within a turn.
    [[*said("same same", word_ms=0, gap_ms=0), *said("later", 9_000, word_ms=0)]],
    [said("So slow that every word of it is long", word_ms=2_500)],
    [said("x" * 100 + " " + "y" * 43 + " z")],
    [said("Ünïcödé 日本語。 ß… 👩‍👩‍👧‍👦 " * 12)],
    [said("<b>bold</b> & --> {\\an8} <i>"), [{"text": "two\nlines\r\n\r\n9", "start_ms": 9_000, "end_ms": 9_100}]],
    [[{"text": "\x00\u2028", "start_ms": 0, "end_ms": 10}]],
    [],
]


def rendered(modules: PageModules, turns: list[Words], form: str, duration_ms: int = 5_000_000) -> str:
    spoken = json.dumps({"duration_ms": duration_ms, "turns": [{"words": words} for words in turns]})
    text: str = modules.run("transcription/captions", f"return m.FORMATS.{form}.render({spoken});")
    return text


def test_each_format(modules: PageModules) -> None:
    """To the letter."""
    turns = [said("Hello there. How are you?", 320), said("I am <b>well</b> & you?", 3_723_004)]
    assert rendered(modules, turns, "txt") == "Hello there. How are you?\n\nI am <b>well</b> & you?\n"
    assert rendered(modules, turns, "srt") == (
        "1\n00:00:00,320 --> 00:00:02,220\nHello there. How are you?\n\n"
        "2\n01:02:03,004 --> 01:02:04,904\nI am ‹b›well‹/b› & you?\n"
    )
    assert rendered(modules, turns, "vtt") == (
        "WEBVTT\n\n00:00:00.320 --> 00:00:02.220\nHello there. How are you?\n\n"
        "01:02:03.004 --> 01:02:04.904\nI am &lt;b&gt;well&lt;/b&gt; &amp; you?\n"
    )
    told = json.loads(rendered(modules, turns, "json"))
    assert told["text"] == "Hello there. How are you? I am <b>well</b> & you?"
    assert told["words"] == turns[0] + turns[1]
    assert told["turns"][1] == {"start_ms": 3_723_004, "end_ms": 3_724_904, "text": "I am <b>well</b> & you?"}
    assert told["duration_ms"] == 5_000_000


def test_cues_can_be_read(modules: PageModules) -> None:
    """Two lines of a length, not too long, none over another; and no word is lost."""
    for turns in SPEECHES:
        spoken = json.dumps([{"words": words} for words in turns])
        cues = modules.run("transcription/captions", f"return m.cues({spoken});")
        ends = 0
        for cue in cues:
            assert ends <= cue["start_ms"] < cue["end_ms"] <= cue["start_ms"] + CUE_MS
            ends = cue["end_ms"]
            assert 1 <= len(cue["lines"]) <= 2
            assert all(len(line) <= LINE or " " not in line for line in cue["lines"])
        lines = " ".join(line for cue in cues for line in cue["lines"])
        words = " ".join(word["text"] for turn in turns for word in turn)
        assert lines.split() == re.sub(r"[\x00\u2028\r\n]", " ", words).split()
        for form, arrows in (("srt", len(cues)), ("vtt", len(cues))):
            assert (rendered(modules, turns, form)).count("-->") == arrows


def test_the_files_are_the_servers(modules: PageModules) -> None:
    """What the page writes of some words is what ``POST /api/transcribe`` answers."""
    for turns in SPEECHES:
        words = tuple(captions.Turn(tuple(captions.TimedWord(**word) for word in turn)) for turn in turns)
        transcript = captions.Transcript(5_000_000, words)
        for form in ("txt", "srt", "vtt"):
            assert rendered(modules, turns, form) == captions.render(transcript, form)
        assert json.loads(rendered(modules, turns, "json")) == json.loads(captions.render(transcript, "json"))


def test_times_for_people(modules: PageModules) -> None:
    times = modules.run("transcription/captions", "return [0, 7_999, 750_000, 3_723_004].map(m.clock);")
    assert times == ["0:00", "0:07", "12:30", "1:02:03"]
    spans = "return [[7_240, 7_510], [60_000, 60_040]].map(([start_ms, end_ms]) => m.span({ start_ms, end_ms }));"
    assert modules.run("transcription/captions", spans) == ["0:07.2 – 0:07.5", "1:00.0"]


def test_paragraphs(modules: PageModules) -> None:
    """By turn, also where words come after the end of theirs; by pause and length where the model does not tell; on one
    timeline through sessions; and never more than so many."""

    def paragraphs(script: str, kept: str = "") -> list[str]:
        """Of each its words, after its title."""
        texts: list[str] = modules.run(
            "transcription/paragraphs",
            f"""
            const said = new m.Paragraphs({kept});
            const word = (text, start_ms, end_ms = start_ms + 300) => said.add({{ text, start_ms, end_ms }});
            {script}
            return said.list.map(({{ title, words }}) =>
              [title, ...words.map(({{ text }}) => text)].filter(Boolean).join(' '));
            """,
        )
        return texts

    assert paragraphs("word('a', 0); word('b', 400); said.turnEnded(900); word('c', 1000);") == ["a b", "c"]
    # A model writes later than a detector hears: by then two turns may be over.
    late = "said.turnEnded(900); said.turnEnded(3000); word('a', 100); word('b', 500); word('c', 2000); "
    assert paragraphs(late + "word('d', 3100);") == ["a b", "c", "d"]
    assert paragraphs("word('a', 0); word('b', 2299); word('c', 4599);") == ["a b", "c"]
    assert paragraphs("word('a', 0); said.begin(); word('b', 0); said.begin('T'); word('c', 5);") == [
        "a",
        "b",
        "T c",
    ]
    assert paragraphs("said.turnEnded(5); said.begin(); said.begin(); said.end();") == []
    assert paragraphs("word('a', 0); said.clear(); word('b', 300);") == ["b"]
    long = "for (let n = 0; n < 300; n += 1) word(n === 150 ? 'end.' : 'w', n * 400);"
    assert [len(text.split()) for text in paragraphs(long)] == [151, 149]
    endless = "for (let n = 0; n < 300; n += 1) word('w', n * 400);"
    assert [len(text.split()) for text in paragraphs(endless)] == [250, 50]
    many = "for (let n = 0; n < 7; n += 1) { word(`${n}`, n * 400); if (n % 2) said.turnEnded(n * 400 + 350); }"
    assert paragraphs(many, "4") == ["4 5", "6"]
    starts = modules.run(
        "transcription/paragraphs",
        """
        const said = new m.Paragraphs();
        for (let session = 0; session < 3; session += 1) {
          said.begin();
          said.add({ text: 'a', start_ms: 80, end_ms: 1200 });
        }
        return said.list.map(({ words }) => words[0].start_ms);
        """,
    )
    assert starts == [80, 2080, 4080]


def test_server_sent_events(modules: PageModules) -> None:
    """However they are cut in pieces."""
    text = (
        ': hello\n\nevent: word\nid: 7\ndata: {"text": "a"}\n\n'
        + "data: one\ndata: two\r\n\r\nevent: none\n\nevent: cut\ndata: off"
    )
    whole = [
        {"event": "word", "id": "7", "data": '{"text": "a"}'},
        {"event": "message", "id": "", "data": "one\ntwo"},
    ]
    for size in (1, 2, 7, 1000):
        pieces = json.dumps([text[at : at + size] for at in range(0, len(text), size)])
        script = f"const stream = new m.EventStream(); return {pieces}.flatMap((piece) => stream.push(piece));"
        assert modules.run("connection/eventstream", script) == whole


def test_which_service_is_behind_which_view(modules: PageModules) -> None:

    def services(names: str, wanted: str = "") -> list[str | None]:
        """``names``: those of the services, the default first; kinds after a colon."""
        offered = [dict(zip(("name", "kind"), one.split(":"), strict=False)) for one in names.split()]
        config = json.dumps({"services": offered, "default_service": offered[0]["name"]})
        found = modules.run("page/tabs", f"return m.servicesOf({config}, '{wanted}');")
        return [found["talk"], found["transcribe"]]

    everything = "dialogue:dialogue transcribe:transcribe echo:echo"
    assert services("echo:echo") == ["echo", None]
    assert services(everything) == ["dialogue", "transcribe"]
    assert services("transcribe:transcribe echo:echo") == ["echo", "transcribe"]
    assert services("transcribe:transcribe") == [None, "transcribe"]
    assert services(everything, "echo") == ["echo", "transcribe"]
    assert services(everything + " stt2:transcribe", "stt2") == ["dialogue", "stt2"]
    # Models that have not loaded yet have a name only.
    assert services("dialogue transcribe echo") == ["dialogue", "transcribe"]
