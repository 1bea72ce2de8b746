"""OpenAI Realtime: items that a client adds, asks for and takes away."""

from __future__ import annotations

from typing import Any

import pytest

from rtc_server.protocols.openai.realtime_items import MAX_ITEMS, MAX_KEPT_BYTES, Items
from tests.support.realtime_client import Client


def test_items_of_the_client_are_kept_and_given_back() -> None:
    client = Client()
    content = [{"type": "input_text", "text": "hi"}, {"type": "input_audio", "audio": "AAAA", "transcript": "x"}]
    client.send("conversation.item.create", item={"type": "message", "role": "user", "id": "mine", "content": content})
    client.send(
        "conversation.item.create", item={"type": "function_call_output", "call_id": "c", "output": "4", "id": "out"}
    )
    assert client.last("conversation.item.added")["previous_item_id"] == "mine"
    client.send("conversation.item.retrieve", item_id="mine")
    item = client.last("conversation.item.retrieved")["item"]
    assert item["content"] == [content[0], {"type": "input_audio", "transcript": "x"}], "its audio is not kept"
    client.send("conversation.item.truncate", item_id="mine", content_index=0, audio_end_ms=100)
    assert client.last("conversation.item.truncated")["audio_end_ms"] == 100
    client.send("conversation.item.delete", item_id="mine")
    added = ["conversation.item.added", "conversation.item.done"]
    told = ["retrieved", "truncated", "deleted"]
    assert client.types() == [*added, *added, *(f"conversation.item.{what}" for what in told)]
    for what, code in (("retrieve", "item_retrieve_invalid_item_id"), ("delete", "item_delete_invalid_item_id")):
        assert client.refused(f"conversation.item.{what}", item_id="mine").event_code == code
    refused = client.refused("conversation.item.truncate", item_id="mine", content_index=0, audio_end_ms=1)
    assert refused.event_code == "item_truncate_invalid_item_id"


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({}, "item.type"),
        ({"type": "poem"}, "item.type"),
        ({"type": "message"}, "item.role"),
        ({"type": "message", "role": "user"}, "item.content"),
        ({"type": "message", "role": "user", "content": ["hi"]}, "item.content"),
        ({"type": "message", "role": "user", "content": [], "id": "x" * 65}, "item.id"),
        ({"type": "message", "role": "user", "content": [], "id": 5}, "item.id"),
    ],
)
def test_items_that_are_none(item: dict[str, Any], param: str) -> None:
    assert Client().refused("conversation.item.create", item=item).param == param


def test_items_are_not_kept_for_ever() -> None:
    items = Items()
    for number in range(MAX_ITEMS + 10):
        items.put({"id": f"item_{number}"})
    assert "item_9" not in items
    assert "item_10" in items
    large = "x" * (MAX_KEPT_BYTES // 2)
    for name in ("a", "b", "c"):
        items.put({"id": name, "text": large})
    assert [name in items for name in ("item_20", "a", "b", "c")] == [False, False, False, True]
    for name in ("c", "item_x"):
        items.remove(name)
    assert items.last_id is None
    items.put({"id": "d", "text": large})
    items.put({"id": "d", "text": large})
    items.put({"id": "e", "text": "x"})
    assert "d" in items, "what was replaced takes no room"
