"""The items of a Realtime conversation: what both sides have said, and what the client has put there. Pure.

None of them is given to the model, which has heard all there is to hear. They are kept because clients ask for them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.events import require_shallow

MAX_ITEMS: Final = 512
MAX_KEPT_BYTES: Final = 1024 * 1024
MAX_ID: Final = 64
_ROLES: Final = ("user", "assistant", "system")
_TYPES: Final = (
    "message",
    "function_call",
    "function_call_output",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "mcp_list_tools",
)


class Items:
    """In order. The oldest are forgotten when there are too many, or they are too large together."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._bytes = 0

    @property
    def last_id(self) -> str | None:
        return next(reversed(self._items), None)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    def get(self, item_id: str) -> dict[str, Any] | None:
        return self._items.get(item_id)

    def put(self, item: dict[str, Any]) -> str | None:
        """Add an item at the end, or replace one where it is. Returns the id of the one before it, as far as that is
        kept."""
        item_id = item["id"]
        is_new = item_id not in self._items
        before = self.last_id if is_new else self._before(item_id)
        self._forget_size(item_id)
        self._items[item_id] = item
        self._sizes[item_id] = len(msgspec.json.encode(item))
        self._bytes += self._sizes[item_id]
        while len(self._items) > MAX_ITEMS or (self._bytes > MAX_KEPT_BYTES and len(self._items) > 1):
            oldest, _ = self._items.popitem(last=False)
            self._forget_size(oldest)
        return before

    def remove(self, item_id: str) -> bool:
        """Whether there was one."""
        self._forget_size(item_id)
        return self._items.pop(item_id, None) is not None

    def _before(self, item_id: str) -> str | None:
        before = None
        for each in self._items:
            if each == item_id:
                break
            before = each
        return before

    def _forget_size(self, item_id: str) -> None:
        self._bytes -= self._sizes.pop(item_id, 0)


def message(item_id: str, role: str, content: list[dict[str, Any]], status: str = "completed") -> dict[str, Any]:
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "status": status,
        "role": role,
        "content": content,
    }


def made_by_client(item: Mapping[str, Any], new_id: str) -> dict[str, Any]:
    """An item as it is kept: what the client has sent, without audio. ``new_id``: for one that has none. Raises
    BadEvent for what is no item."""
    require_shallow(item, "item")
    if item.get("type") not in _TYPES:
        raise BadEvent("invalid_value", f"It is one of: {', '.join(_TYPES)}.", "item.type")
    item_id = item.get("id") or new_id
    if not isinstance(item_id, str) or len(item_id) > MAX_ID:
        raise BadEvent("invalid_value", f"It is a text of at most {MAX_ID} characters.", "item.id")
    kept = {**item, "id": item_id, "object": "realtime.item", "status": "completed"}
    if item["type"] == "message":
        if item.get("role") not in _ROLES:
            raise BadEvent("invalid_value", f"It is one of: {', '.join(_ROLES)}.", "item.role")
        kept["content"] = _without_audio(item.get("content"))
    return kept


def _without_audio(content: Any) -> list[dict[str, Any]]:
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise BadEvent("invalid_value", "It must be a list of objects.", "item.content")
    return [{name: value for name, value in part.items() if name != "audio"} for part in content]
