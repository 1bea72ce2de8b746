"""LiveKit's model of OpenAI Realtime, called as :mod:`apart` says, with the API's URL."""

from __future__ import annotations

import asyncio
import sys

from apart import RATE_HZ, Ear, ask_all
from livekit import rtc
from livekit.agents.llm.realtime import GenerationCreatedEvent
from livekit.plugins.openai.realtime import RealtimeModel


async def main(url: str, *files: str) -> int:
    model = RealtimeModel(base_url=url, api_key="any")
    session, ear, errors, tasks = model.session(), Ear(), [], []
    session.on("error", errors.append)

    async def listen(generation: GenerationCreatedEvent) -> None:
        async for message in generation.message_stream:
            text = asyncio.create_task(read(message.text_stream))
            async for frame in message.audio_stream:
                ear.hear(bytes(frame.data))
            await text

    async def read(stream) -> None:  # type: ignore[no-untyped-def]
        ear.read(" ")  # a message begins without one, and is the second of an answer that a pause has parted
        async for delta in stream:
            ear.read(delta)

    async def say(frame: bytes) -> None:
        session.push_audio(rtc.AudioFrame(frame, RATE_HZ, 1, len(frame) // 2))

    session.on("generation_created", lambda event: tasks.append(asyncio.create_task(listen(event))))
    await session.update_instructions("Be kind.")
    failed = await ask_all(files, ear, say)
    await session.aclose()
    await model.aclose()
    for task in tasks:
        task.cancel()
    for error in errors:
        print(error, file=sys.stderr)
    return failed + len(errors)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
