"""A room's members, the order of what is said, who gets it in which language, and what goes when they go."""

from __future__ import annotations

import numpy as np
import pytest

from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from rtc_server.errors import ServerFull, UnknownMember
from rtc_server.protocols.rooms import (
    MemberChange,
    Playing,
    RoomMessage,
    RoomSettings,
    RoomState,
    Speaking,
)
from rtc_server.rooms.homes import Inheritance
from rtc_server.rooms.journal import Unwritten
from rtc_server.rooms.member import Member
from rtc_server.rooms.record import lasts, read_message, read_room, record_of, write
from rtc_server.rooms.room import (
    ABSENCE_S,
    EMPTY_S,
    KEPT_CHARACTERS,
    KEPT_MESSAGES,
    KEPT_SOUND_BYTES,
    MOST_MEMBERS,
    Room,
)
from tests.support.seats import Client, seated

PAIRS = frozenset({("en", "pt"), ("pt", "en"), ("en", "es")})
SOUND = np.full(MODEL_RATE_HZ // 2, 0.1, dtype=np.float32)


def a_room() -> Room:
    room = Room("0-0-room", "Kitchen", False, 0.0)
    room.translated = PAIRS
    return room


def tone(level: float = 0.2) -> FloatArray:
    return (level * np.sin(np.arange(FRAME_SAMPLES) / 10)).astype(np.float32)


def test_a_message_is_needed_once_in_each_language_of_the_others() -> None:
    """Ten members, three languages: two translations."""
    room = a_room()
    members = [seated(room, str(number), ("en", "pt", "es")[number % 3])[0] for number in range(10)]
    assert room.needed(members[0]) == {"pt", "es"}
    message = room.say(members[0], "good morning", "speech", 1000, 1.0)
    assert {language: each.state for language, each in message.renderings.items()} == {"pt": "pending", "es": "pending"}


def test_those_of_the_same_language_read_the_original_at_once() -> None:
    room = a_room()
    ann, own = seated(room, "Ann", "en")
    _, bob = seated(room, "Bob", "en")
    _, ana = seated(room, "Ana", "pt")
    message = room.say(ann, "good morning", "speech", 1000, 1.0)
    assert own.messages == bob.messages == [("1", "good morning", "ready")]
    assert ana.messages == [("1", "good morning", "pending")]
    room.rendered(message, "pt", 2.0, "bom dia", "good morning", SOUND)
    assert ana.messages[1:] == [("1", "bom dia", "ready")]
    assert ana.of(RoomMessage)[-1].original == "good morning"
    assert len(bob.messages) == 1


def test_a_message_is_offered_as_sound_where_there_are_words_of_it_and_a_voice() -> None:
    room = a_room()
    room.spoken = frozenset({"en", "es"})
    ann, own = seated(room, "Ann", "en")
    _, ana = seated(room, "Ana", "pt")
    _, eva = seated(room, "Eva", "es")
    message = room.say(ann, "good morning", "speech", 1000, 1.0)
    address = "rooms/0-0-room/messages/1/audio?language="
    assert [each.audio for each in own.of(RoomMessage)] == [f"{address}en"]
    room.rendered(message, "pt", 2.0, "bom dia")
    room.rendered(message, "es", 2.0, "buenos días")
    assert [each.audio for each in eva.of(RoomMessage)] == [None, f"{address}es"]
    assert [each.audio for each in ana.of(RoomMessage)] == [None, None], "there is no voice for it"
    nothing = room.say(ann, "well", "speech", 1000, 3.0)
    room.rendered(nothing, "es", 4.0, "")
    assert eva.of(RoomMessage)[-1].audio is None


def test_a_failed_translation_is_told_with_its_reason_and_costs_no_other() -> None:
    room = a_room()
    ann, _ = seated(room, "Ann", "en")
    _, ana = seated(room, "Ana", "pt")
    _, eva = seated(room, "Eva", "es")
    message = room.say(ann, "good morning", "speech", 1000, 1.0)
    room.rendered(message, "pt", 2.0, reason="translation_failed")
    room.rendered(message, "es", 2.0, "buenos días", "good morning", SOUND)
    assert (ana.of(RoomMessage)[-1].state, ana.of(RoomMessage)[-1].reason) == ("failed", "translation_failed")
    assert ana.of(RoomMessage)[-1].text == "good morning"
    assert eva.messages[-1] == ("1", "buenos días", "ready")


def test_a_speaker_is_told_when_what_they_said_is_there_in_no_language_of_theirs() -> None:
    """A model that hears for itself may translate and write nothing down. It is pending as long as one is at it."""
    room = a_room()
    _, own = seated(room, "Ann", "en")
    ann = next(iter(room))
    seated(room, "Ana", "pt")
    seated(room, "Eva", "es")
    seated(room, "Ute", "de")
    message = room.say(ann, "", "speech", 1000, 1.0)
    assert own.messages == [("1", "", "pending")]
    room.rendered(message, "pt", 2.0, "bom dia", "", SOUND)
    assert own.messages[-1] == ("1", "", "pending")
    room.rendered(message, "es", 2.5, "buenos días", "", SOUND)
    assert own.messages[-1] == ("1", "", "failed")
    assert own.of(RoomMessage)[-1].reason == "unwritten"
    room.rendered(message, "en", 3.0, "good morning", "good morning")
    assert own.messages[-1] == ("1", "good morning", "ready")
    failed = room.say(ann, "", "speech", 1000, 4.0)
    for language in ("pt", "es"):
        room.rendered(failed, language, 5.0, reason="translation_late")
    assert (own.of(RoomMessage)[-1].state, own.of(RoomMessage)[-1].reason) == ("failed", "translation_late")


def test_a_hundred_members_of_thirty_languages_need_twenty_nine_translations_of_what_one_says() -> None:
    """And each gets theirs, once it is there, and no other."""
    languages = [f"l{number:02}" for number in range(30)]
    room = Room("0-0-room", "Kitchen", False, 0.0)
    room.translated = frozenset((one, other) for one in languages for other in languages if one != other)
    seats = [seated(room, str(number), languages[number % 30]) for number in range(100)]
    ann = seats[0][0]
    message = room.say(ann, "hello", "speech", 1000, 1.0)
    assert sorted(message.renderings) == languages[1:]
    for language in languages[1:]:
        room.rendered(message, language, 2.0, f"hello in {language}", "hello", SOUND)
    for member, client in seats:
        told = client.messages
        own = member.language == ann.language
        said = (
            [("1", "hello", "ready")]
            if own
            else [("1", "hello", "pending"), ("1", f"hello in {member.language}", "ready")]
        )
        assert told == said, member.language
        assert (heard(room, member, 1, 3.0).any()) is np.bool_(not own)


def test_between_languages_that_nothing_translates_the_original_is_all() -> None:
    room = a_room()
    ana, _ = seated(room, "Ana", "pt")
    eva, client = seated(room, "Eva", "es")
    room.say(ana, "bom dia", "speech", 1000, 1.0)
    assert (client.of(RoomMessage)[0].state, client.of(RoomMessage)[0].reason) == ("failed", "untranslatable")
    room.speak(ana, tone())
    assert np.allclose(room.hear(eva, 1.0), tone(), atol=1e-6)


def heard(room: Room, member: Member, frames: int, now: float) -> FloatArray:
    return np.concatenate([room.hear(member, now) for _ in range(frames)])


def test_translations_are_heard_in_the_order_in_which_things_were_said() -> None:
    """One that is there sooner waits for those before it."""
    room = a_room()
    ann, _ = seated(room, "Ann", "en")
    ben, _ = seated(room, "Ben", "en")
    ana, client = seated(room, "Ana", "pt")
    first, second = room.say(ann, "one", "speech", 500, 1.0), room.say(ben, "two", "speech", 500, 1.5)
    room.rendered(second, "pt", 2.0, "dois", "two", SOUND)
    assert not heard(room, ana, 10, 2.0).any()
    room.rendered(first, "pt", 3.0, "um", "one", SOUND)
    assert heard(room, ana, 20, 3.0).any()
    started = [each.message for each in client.of(Playing) if each.state == "started"]
    assert started == ["1", "2"]


def test_one_that_fails_does_not_hold_up_those_behind_it() -> None:
    room = a_room()
    ann, _ = seated(room, "Ann", "en")
    ana, client = seated(room, "Ana", "pt")
    first, second = room.say(ann, "one", "speech", 500, 1.0), room.say(ann, "two", "speech", 500, 2.0)
    room.rendered(second, "pt", 3.0, "dois", "two", SOUND)
    room.rendered(first, "pt", 11.0, reason="translation_late")
    heard(room, ana, 10, 11.0)
    assert [each.message for each in client.of(Playing)] == ["2", "2"]


def test_a_listener_who_falls_behind_is_told_what_was_skipped_and_keeps_its_text() -> None:
    """Of five that take five seconds each the first is being heard, and those that would end after more than twelve
    seconds are not waited for."""
    room = a_room()
    ann, _ = seated(room, "Ann", "en")
    ana, client = seated(room, "Ana", "pt")
    long = np.full(5 * MODEL_RATE_HZ, 0.1, dtype=np.float32)
    for number in range(1, 6):
        message = room.say(ann, f"number {number}", "speech", 5000, float(number))
        room.rendered(message, "pt", float(number), f"número {number}", f"number {number}", long)
        heard(room, ana, 1, float(number))
    assert [each.message for each in client.of(Playing) if each.state == "skipped"] == ["2", "3", "4"]
    heard(room, ana, 200, 6.0)
    played = [(each.message, each.state) for each in client.of(Playing) if each.state != "skipped"]
    assert played == [(number, state) for number in "15" for state in ("started", "ended")]
    read = {each.id: (each.state, each.text) for each in client.of(RoomMessage)}
    assert read == {str(number): ("ready", f"número {number}") for number in range(1, 6)}


def test_a_member_has_one_voice_in_all_that_is_said_also_in_another_home() -> None:
    """And others have others, as far as there are enough."""
    journal = Unwritten()
    room = Room("0-0-room", "Kitchen", False, 0.0, journal)
    members = [room.join("Ann", "en", 0.0)[0] for _ in range(20)]
    ann = members[0]
    said = [room.say(ann, text, "speech", 500, 1.0) for text in ("one", "two")]
    room.change(ann, RoomSettings(language="pt", name="Ana"), 2.0)
    room.sit(ann, Client(), 2.0)
    said += [room.say(ann, "três", "speech", 500, 3.0), room.begin_message(ann, "pt", "en", "four", 4.0)]
    written = [read_message(write(record_of(each))) for each in said]
    inherited = Room.inherited(room.id, Inheritance(read_room(write(room.record())), written, {}), 9.0, journal)
    there = {member.id: member for member in inherited}
    said += [*inherited.messages, inherited.say(there[ann.id], "five", "speech", 500, 10.0)]
    assert len(said) == 9
    assert {message.voice for message in said} == {ann.voice}
    assert {member.id: member.voice for member in members} == {each.id: each.voice for each in inherited}
    assert len({member.voice for member in members}) > 10


def test_a_speaker_does_not_hear_themselves_nor_their_translation() -> None:
    room = a_room()
    ann, client = seated(room, "Ann", "en")
    seated(room, "Ana", "pt")
    message = room.say(ann, "good morning", "speech", 1000, 1.0)
    room.speak(ann, tone())
    room.rendered(message, "pt", 2.0, "bom dia", "good morning", SOUND)
    assert not heard(room, ann, 10, 2.0).any()
    assert client.of(Playing) == []


def test_what_is_written_is_read_and_not_spoken() -> None:
    room = a_room()
    ann, _ = seated(room, "Ann", "en")
    ana, client = seated(room, "Ana", "pt")
    message = room.say(ann, "good morning", "text", 0, 1.0)
    room.rendered(message, "pt", 2.0, "bom dia", "good morning", SOUND)
    assert not heard(room, ana, 10, 2.0).any()
    assert client.messages[-1] == ("1", "bom dia", "ready")


def test_original_only_means_no_translated_voice_and_the_original_in_full() -> None:
    room = a_room()
    ann, _ = seated(room, "Ann", "en")
    ana, client = seated(room, "Ana", "pt")
    room.change(ana, RoomSettings(original="only"), 0.0)
    message = room.say(ann, "good morning", "speech", 1000, 1.0)
    room.rendered(message, "pt", 2.0, "bom dia", "good morning", SOUND)
    room.speak(ann, tone())
    assert np.allclose(room.hear(ana, 2.0), tone(), atol=1e-6)
    assert client.of(Playing) == []
    assert client.messages[-1] == ("1", "bom dia", "ready")


def test_an_original_that_is_off_is_not_heard() -> None:
    room = a_room()
    ann, _ = seated(room, "Ann", "en")
    ana, _ = seated(room, "Ana", "pt")
    room.change(ana, RoomSettings(original="off"), 0.0)
    room.speak(ann, tone())
    assert not room.hear(ana, 1.0).any()


def test_a_language_is_changed_at_any_time_and_told() -> None:
    room = a_room()
    ann, own = seated(room, "Ann", "en")
    ana, client = seated(room, "Ana", "pt")
    room.change(ana, RoomSettings(language="en"), 1.0)
    assert [each.member.language for each in own.of(MemberChange)][-1] == "en"
    assert room.needed(ann) == frozenset()
    room.say(ann, "good morning", "speech", 1000, 2.0)
    assert client.messages == [("1", "good morning", "ready")]


def test_newcomers_read_what_was_said_last() -> None:
    room = a_room()
    ann, _ = seated(room, "Ann", "en")
    for number in range(60):
        room.say(ann, f"number {number}", "text", 0, 1.0)
    _, late = seated(room, "Ben", "en")
    assert isinstance(late.events[0], RoomState)
    assert [text for _, text, _ in late.messages] == [f"number {number}" for number in range(10, 60)]


def test_the_last_things_said_are_to_be_translated_for_a_newcomer() -> None:
    room = a_room()
    ann, _ = seated(room, "Ann", "en")
    for number in range(20):
        room.say(ann, f"number {number}", "text", 0, 1.0)
    ana, _ = room.join("Ana", "pt", 2.0)
    missing = room.untranslated(ana)
    assert [message.original for message in missing] == [f"number {number}" for number in range(12, 20)]
    assert room.untranslated(ana) == [], "they are under way"
    rui, _ = room.join("Rui", "de", 2.0)
    assert room.untranslated(rui) == [], "nothing translates into that"


def test_a_token_is_one_member_and_no_other_opens_anything() -> None:
    room = a_room()
    ann, token = room.join("Ann", "en", 0.0)
    _, other = room.join("Ann", "en", 0.0)
    assert token != other
    assert room.member(token) is ann
    with pytest.raises(UnknownMember):
        room.member(f"{token}x")
    room.leave(ann, 1.0)
    with pytest.raises(UnknownMember):
        room.member(token)


def test_another_session_of_the_same_member_ends_the_first() -> None:
    room = a_room()
    ann, first = seated(room, "Ann", "en")
    second = Client()
    room.sit(ann, second, 1.0)
    assert first.ended == 1
    room.stand_up(ann, first, 1.0)
    assert ann.here, "the session that ended was not the member's any more"


def test_members_who_stay_away_leave_and_an_empty_room_is_over() -> None:
    room = a_room()
    ann, client = seated(room, "Ann", "en")
    ben, _ = room.join("Ben", "en", 0.0)
    assert not room.expire(ABSENCE_S - 1)
    assert not room.expire(ABSENCE_S)
    assert [each.id for each in room] == [ann.id]
    assert [(each.member.id, each.change) for each in client.of(MemberChange)][-1] == (ben.id, "left")
    room.stand_up(ann, client, 100.0)
    assert not room.expire(100.0 + ABSENCE_S)
    assert len(room) == 0
    assert not room.expire(100.0 + ABSENCE_S + EMPTY_S - 1)
    assert room.expire(100.0 + ABSENCE_S + EMPTY_S)


def test_who_leaves_while_speaking_does_not_speak_any_more() -> None:
    room = a_room()
    ann, client = seated(room, "Ann", "en")
    _, ben = seated(room, "Ben", "en")
    room.set_speaking(ann, True)
    room.stand_up(ann, client, 1.0)
    assert [each.on for each in ben.of(Speaking)] == [True, False]


def test_a_room_has_so_many_members_and_keeps_so_much() -> None:
    room = a_room()
    ann, _ = seated(room, "Ann", "en")
    seated(room, "Ana", "pt")
    for _ in range(MOST_MEMBERS - 2):
        room.join("Ben", "en", 0.0)
    with pytest.raises(ServerFull):
        room.join("Ben", "en", 0.0)
    for number in range(KEPT_MESSAGES + 10):
        message = room.say(ann, str(number), "text", 0, 1.0)
        room.rendered(message, "pt", 1.0, str(number), str(number), SOUND)
    assert room.message("1") is None
    kept = [room.message(str(number)) for number in range(11, KEPT_MESSAGES + 11)]
    assert all(kept)
    sounds = [each.renderings["pt"].sound for each in kept if each is not None]
    assert 0 < sum(len(sound) for sound in sounds if sound is not None) <= KEPT_SOUND_BYTES
    assert sounds[-1] is not None, "the newest is kept"
    assert sounds[0] is None
    assert room.sound_bytes == sum(len(sound) for sound in sounds if sound is not None)


def test_a_room_of_long_messages_keeps_fewer() -> None:
    """A thousand rooms of 200 messages with 2,000 characters each would be gigabytes."""
    room = a_room()
    ann, _ = seated(room, "Ann", "en")
    said = [room.say(ann, "x" * 2000, "text", 0, 1.0) for _ in range(KEPT_MESSAGES)]
    assert sum(len(each.original) for each in room.messages) == KEPT_CHARACTERS
    assert room.messages == said[-KEPT_CHARACTERS // 2000 :]


def test_names_are_text_and_nothing_else() -> None:
    room = a_room()
    member, _ = room.join("\u202eAna\n\x00 Maria" + "x" * 80, "pt", 0.0)
    assert member.name.startswith("Ana Maria")
    assert len(member.name) == 64
    unnamed, _ = room.join("\n", "pt", 0.0)
    assert unnamed.name == unnamed.id


def test_a_quiet_microphone_is_not_mixed() -> None:
    room = a_room()
    ann, _ = seated(room, "Ann", "en")
    ben, _ = seated(room, "Ben", "en")
    room.speak(ann, tone(0.0005))
    assert not room.hear(ben, 1.0).any()


def test_how_loud_others_are_follows_every_change() -> None:
    """Of a language, of what is wished, of what is translated, and of who is there; also while they are heard."""
    room = a_room()
    ann, _ = seated(room, "Ann", "en")
    ana, _ = seated(room, "Ana", "pt")

    def level(speaker: Member = ann) -> float:
        """Of a speaker in Ana's ears, when it has settled."""
        for _ in range(14):
            room.speak(speaker, tone())
            pcm = room.hear(ana, 1.0)
        return round(float(np.abs(pcm).max() / 0.2), 2)

    assert level() == 0.25
    room.change(ana, RoomSettings(original="only"), 1.0)
    assert level() == 1.0
    room.change(ana, RoomSettings(original="off"), 1.0)
    assert level() == 0.0
    room.change(ann, RoomSettings(language="pt"), 1.0)
    assert level() == 1.0
    room.change(ann, RoomSettings(language="es"), 1.0)
    assert level() == 1.0, "nothing translates from Spanish to Portuguese"
    room.translated = PAIRS | {("es", "pt")}
    assert level() == 0.0
    ben, _ = seated(room, "Ben", "pt")
    assert level(ben) == 1.0
    room.leave(ben, 1.0)
    assert level(ann) == 0.0


def test_what_grows_is_kept_as_far_as_it_is_and_for_whom() -> None:
    """In another process it is what there was of it, for members of its language alone; what grew is not written down
    event by event."""
    room = a_room()
    (ana, _), (_, client) = seated(room, "Ana", "pt"), seated(room, "Ann", "en")
    message = room.begin_message(ana, "pt", "en", "good", 1.0)
    room.grow(message, "good morning", 2.0)
    grown = client.of(RoomMessage)[-1]
    assert (grown.text, grown.grows, lasts(grown, 1)) == ("good morning", True, False)
    inherited = read_message(write(record_of(message))).message(9.0)
    assert (inherited.text_in("en"), inherited.is_for("en"), inherited.is_for("pt")) == ("good morning", True, False)
    room.end_message(message, "good morning", tone(), 80, 3.0)
    assert lasts(client.of(RoomMessage)[-1], 1)
    spoken = room.say(ana, "bom dia", "speech", 80, 3.0, elsewhere="en")
    assert spoken.renderings == {}
    inherited = read_message(write(record_of(spoken))).message(9.0)
    assert (inherited.is_for("en"), inherited.is_for("pt")) == (False, True)


def test_what_a_model_did_not_come_to_is_translated_after_all_and_shown_where_it_cannot_be() -> None:
    room = a_room()
    ann, own = seated(room, "Ann", "en")
    ana, client = seated(room, "Ana", "pt")
    _, eva = seated(room, "Eva", "es")
    message = room.say(ann, "good morning", "speech", 1000, 1.0, elsewhere="pt")
    assert client.messages == []
    room.take_up(message)
    assert client.messages == [("1", "good morning", "pending")]
    room.rendered(message, "pt", 2.0, "bom dia", "good morning", SOUND)
    assert client.messages[1:] == [("1", "bom dia", "ready")]
    heard(room, ana, 1, 2.0)
    assert Playing("1", "started") in client.events
    assert len(own.messages) == len(eva.messages) == 1

    room.translated = frozenset()
    lost = room.say(ann, "well", "speech", 400, 3.0, elsewhere="pt")
    room.take_up(lost)
    assert (client.of(RoomMessage)[-1].state, client.of(RoomMessage)[-1].reason) == ("failed", "untranslatable")
    assert client.messages[-1] == ("2", "well", "failed")


def test_what_a_model_did_not_come_to_when_no_listener_was_left_waits_for_the_next() -> None:
    room = a_room()
    ann, _ = seated(room, "Ann", "en")
    ana, _ = seated(room, "Ana", "pt")
    message = room.say(ann, "good morning", "speech", 1000, 1.0, elsewhere="pt")
    room.leave(ana, 2.0)
    room.take_up(message)
    assert message.renderings == {}
    inherited = read_message(write(record_of(message))).message(9.0)
    assert inherited.is_for("pt")
    late, _ = seated(room, "Rui", "pt")
    assert room.untranslated(late) == [message]
