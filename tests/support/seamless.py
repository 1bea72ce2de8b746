"""A client of Seamless Chat, written from the shapes of its requests and messages alone: it knows nothing of ours."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from lab.waiting import until_told

FIELDS = {"messageId", "userId", "userName", "lang", "text", "audio"}
"""Of a message, in full."""


class SeamlessChat:
    """``http``: of the server's root."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def create_room(self) -> str:
        async with self._http.post("/create-room") as made:
            assert made.status == 200, await made.text()
            return str((await made.json())["roomId"])

    async def create_user(self, name: str, lang: str) -> str:
        form = aiohttp.FormData({"user_name": name, "lang": lang}, default_to_multipart=True)
        async with self._http.post("/create-user", data=form) as made:
            assert made.status == 200, await made.text()
            return str((await made.json())["userId"])

    async def rooms(self) -> dict[str, Any]:
        async with self._http.get("/rooms") as answer:
            assert answer.status == 200
            return dict(await answer.json())

    async def room_info(self, room: str) -> tuple[int, dict[str, Any]]:
        async with self._http.get("/room-info", params={"room_id": room}) as answer:
            return answer.status, await answer.json()

    @contextlib.asynccontextmanager
    async def chat(self, user: str, room: str, lang: str) -> AsyncIterator[Chat]:
        async with self._http.ws_connect("/chat", max_msg_size=0) as socket:
            await socket.send_json({"user_id": user, "room_id": room, "lang": lang})
            yield Chat(socket)

    @contextlib.asynccontextmanager
    async def joined(self, room: str, name: str, lang: str) -> AsyncIterator[Chat]:
        """A new user's socket in a room, of which they are a member when this returns. They are known by their name."""
        async with self.chat(await self.create_user(name, lang), room, lang) as chat:
            await until_told(lambda: self._is_in(room, name), "the member")
            yield chat

    async def _is_in(self, room: str, name: str) -> bool:
        return name in [each["name"] for each in (await self.room_info(room))[1]["members"].values()]


class Chat:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, text: str) -> None:
        await self.socket.send_json({"message_type": "text", "content": text})

    async def play(self, recording: bytes, kind: str = "audio/wav") -> None:
        content = f"data:{kind};base64,{base64.b64encode(recording).decode()}"
        await self.socket.send_json({"message_type": "audio", "content": content})

    async def hear(self) -> dict[str, Any]:
        """The next message."""
        return dict(await self.socket.receive_json(timeout=60))
