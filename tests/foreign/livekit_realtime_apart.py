"""LiveKit's model of OpenAI Realtime, in an environment of its own: asks what a wave file says, and records the answer.

Called with the API's URL, the question and the answer (16 bits, mono, 24 kHz); prints the words.
"""

from __future__ import annotations

import asyncio
import sys
import wave

from livekit import rtc
from livekit.agents.llm.realtime import GenerationCreatedEvent
from livekit.plugins.openai.realtime import RealtimeModel

RATE_HZ, FRAME_S, PATIENCE_S = 24_000, 0.02, 60
FRAME_BYTES = int(RATE_HZ * FRAME_S) * 2


async def main(url: str, question: str, answer: str) -> int:
    with wave.open(question) as file:
        pcm = file.readframes(file.getnframes())
    model = RealtimeModel(base_url=url, api_key="any")
    session, heard, errors, tasks = model.session(), bytearray(), [], []
    over = asyncio.Event()
    session.on("error", errors.append)

    async def listen(generation: GenerationCreatedEvent) -> None:
        async for message in generation.message_stream:
            text = asyncio.create_task(read(message.text_stream))
            async for frame in message.audio_stream:
                heard.extend(bytes(frame.data))
            await text
        if heard:
            over.set()

    async def read(stream) -> None:  # type: ignore[no-untyped-def]
        async for delta in stream:
            print(delta, end="", flush=True)

    session.on("generation_created", lambda event: tasks.append(asyncio.create_task(listen(event))))
    await session.update_instructions("Be kind.")
    loop = asyncio.get_running_loop()
    due, late = loop.time(), loop.time() + PATIENCE_S
    while not over.is_set() and loop.time() < late:
        frame, pcm = pcm[:FRAME_BYTES].ljust(FRAME_BYTES, b"\0"), pcm[FRAME_BYTES:]
        session.push_audio(rtc.AudioFrame(frame, RATE_HZ, 1, len(frame) // 2))
        due += FRAME_S
        await asyncio.sleep(max(0.0, due - loop.time()))
    await session.aclose()
    await model.aclose()
    for task in tasks:
        task.cancel()
    with wave.open(answer, "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes(heard)
    for error in errors:
        print(error, file=sys.stderr)
    return len(errors)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
