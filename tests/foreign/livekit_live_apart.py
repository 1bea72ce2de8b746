"""LiveKit's model of OpenAI Live, called as :mod:`apart` says, with the API's URL."""

from __future__ import annotations

import asyncio
import sys

from apart import RATE_HZ, Ear, ask_all
from livekit import rtc
from livekit.agents import llm
from livekit.plugins.openai.realtime import GPTLiveModel

START_S = 20


async def main(url: str, *files: str) -> int:
    model = GPTLiveModel(base_url=url, api_key="any")
    session, ear, errors = model.session(), Ear(), []
    session.on("transcript_delta", lambda event: ear.read(event.text))
    session.on("error", errors.append)
    await session._update_session(instructions="Be kind.", chat_ctx=llm.ChatContext.empty(), tools=[])

    async def listen() -> None:
        async for each in session.audio_stream:
            ear.hear(bytes(each.frame.data))

    async def say(frame: bytes) -> None:
        session.push_audio(rtc.AudioFrame(frame, RATE_HZ, 1, len(frame) // 2))

    listening = asyncio.create_task(listen())
    async with asyncio.timeout(START_S):
        while session.session_id is None:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.02)
    failed = await ask_all(files, ear, say)
    await session.aclose()
    await model.aclose()
    listening.cancel()
    for error in errors:
        print(error, file=sys.stderr)
    return failed + len(errors)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
