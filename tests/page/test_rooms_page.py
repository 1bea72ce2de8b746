"""The parts of the rooms' page that need no page: what is known of a room, the microphone's ways, words, addresses."""

from __future__ import annotations

import json
from typing import Any

from tests.support.page_modules import PageModules

ROOM = {
    "type": "room",
    "room": {"id": "r", "name": "Kitchen"},
    "you": "m1",
    "members": [
        {"id": "m2", "name": "Ana", "language": "pt", "here": True},
        {"id": "m1", "name": "Zoe", "language": "en", "here": True},
    ],
}


def message(number: int, **more: Any) -> dict[str, Any]:
    said = {"type": "message", "id": str(number), "user": "m2", "name": "Ana", "language": "pt", "kind": "speech"}
    return {**said, "text": "bom dia", "original": "bom dia", "state": "pending", "reason": None, "audio": None} | more


def seen(modules: PageModules, *events: dict[str, Any]) -> dict[str, Any]:
    """What a room is after these events, and what each of them changed."""
    script = f"""
      const room = new m.Room('en');
      const changes = {json.dumps(events)}.map((event) => room.apply(event, 1000));
      const {{ people, messages, name, you, language }} = room;
      return {{ people, messages, name, you, language, changes }};
    """
    found: dict[str, Any] = modules.run("rooms/room", script)
    return found


def test_who_is_in_a_room(modules: PageModules) -> None:
    """The user first; who speaks; who comes, goes, and has another language."""
    joined = {"type": "member", "member": {"id": "m3", "name": "Bo", "language": "es", "here": True}}
    found = seen(
        modules,
        ROOM,
        {"type": "speaking", "member": "m2", "on": True},
        {**joined, "change": "joined"},
        {**joined, "change": "left"},
    )
    assert [(one["name"], one["speaking"]) for one in found["people"]] == [("Zoe", False), ("Ana", True)]
    assert (found["name"], found["you"], found["language"]) == ("Kitchen", "m1", "en")
    assert found["changes"][2]["joined"]["name"] == "Bo"
    assert found["changes"][3]["left"]["name"] == "Bo"


def test_messages_stand_in_the_order_in_which_they_were_said(modules: PageModules) -> None:
    """By number and not as text; the last that is told of one counts; it is complete once."""
    ready = message(10, text="good morning", state="ready", audio="rooms/r/messages/10/audio?language=en")
    found = seen(modules, ROOM, message(10), message(9, user="m1"), ready, ready)
    assert [(one["id"], one["text"], one["own"]) for one in found["messages"]] == [
        ("9", "bom dia", True),
        ("10", "good morning", False),
    ]
    assert [change["settled"] for change in found["changes"][1:]] == [False, False, True, False]


def test_a_message_that_grows_is_not_complete_before_it_has_ended(modules: PageModules) -> None:
    more = [message(1, text=text, original="", grows=True) for text in ("good", "good morning")]
    found = seen(modules, ROOM, *more, message(1, text="good morning", original="", grows=False, state="ready"))
    assert [change["settled"] for change in found["changes"][1:]] == [False, False, True]
    assert [change["message"]["text"] for change in found["changes"][1:3]] == ["good", "good morning"]
    assert [change["message"]["grows"] for change in found["changes"][1:]] == [True, True, False]


def test_what_is_heard_of_a_message(modules: PageModules) -> None:
    """It is marked while it plays; one that was skipped stays so; what is not known changes nothing."""
    played = [{"type": "playing", "message": "1", "state": state} for state in ("started", "ended", "skipped")]
    unknown = {"type": "playing", "message": "7", "state": "started"}
    found = seen(modules, ROOM, message(1), *played, unknown, {"type": "message"}, {"type": "news"})
    assert [change.get("message", {}).get("playing") for change in found["changes"][2:]] == [
        "started", "", "skipped", None, None, None,
    ]  # fmt: skip


def test_the_oldest_messages_go(modules: PageModules) -> None:
    script = f"""
      const room = new m.Room('en');
      let gone = [];
      for (let id = 1; id <= m.KEPT_MESSAGES + 2; id += 1) {{
        gone = [...gone, ...room.apply({{ ...{json.dumps(message(1))}, id: String(id) }}, 0).gone];
      }}
      return [gone, room.messages.length === m.KEPT_MESSAGES];
    """
    assert modules.run("rooms/room", script) == [["1", "2"], True]


def test_when_the_microphone_is_heard(modules: PageModules) -> None:
    """Open: unless it is muted. Push to talk: while the button or the space bar is held, and no longer."""
    script = """
      const talk = new m.TalkMode(false);
      const found = [talk.muted];
      talk.hold('space'); found.push(talk.held);
      talk.toggle(); found.push(talk.muted);
      talk.push = true; found.push(talk.muted);
      talk.hold('space'); talk.hold('button'); talk.release('space'); found.push(talk.muted);
      talk.release('button'); found.push(talk.muted);
      talk.hold('space'); talk.releaseAll(); found.push(talk.muted);
      talk.push = false; found.push(talk.muted);
      return found;
    """
    assert modules.run("rooms/talkmode", script) == [False, False, True, True, False, True, True, True]


def test_an_address_is_an_invitation(modules: PageModules) -> None:
    """It names the room, and nothing of the user who copies it."""
    script = """
      const link = m.invitation('http://host/under/rooms.html?raw=1#room=0-0-a', '0-0-b c');
      return [link, m.roomOf(new URL(link).hash), m.roomOf('#'), m.roomOf('')];
    """
    link = "http://host/under/rooms.html#room=0-0-b+c"
    assert modules.run("rooms/address", script) == [link, "0-0-b c", "", ""]


def test_the_language_to_begin_with(modules: PageModules) -> None:
    """The last choice, or what the browser asks for, where it is there; else the first."""
    script = """
      const all = [{ code: 'en' }, { code: 'pt' }];
      return [m.firstLanguage(all, 'pt', ['en-GB']), m.firstLanguage(all, '', ['de', 'pt-BR']),
              m.firstLanguage(all, 'xx', []), m.firstLanguage([], '', ['en'])];
    """
    assert modules.run("rooms/membership", script) == ["pt", "pt", "en", ""]


def test_what_becomes_of_a_message_is_said_in_words(modules: PageModules) -> None:
    def note(**more: Any) -> str:
        found = {"state": "ready", "reason": None, "text": "x", "playing": "", **more}
        said: str = modules.run("rooms/words", f"return m.messageNote({json.dumps(found)}, 'Portuguese', 'English');")
        return said

    assert note() == ""
    assert note(state="pending") == "Translating…"
    assert note(state="pending", grows=True) == ""
    assert note(state="pending", grows=True, playing="started") == "You hear this now"
    assert note(state="pending", text="") == "Being written down…"
    assert "translates Portuguese into English" in note(state="failed", reason="untranslatable")
    assert "could not be translated" in note(state="failed", reason="overloaded")
    assert "hear this now" in note(playing="started")
    assert "read it here" in note(playing="skipped")
