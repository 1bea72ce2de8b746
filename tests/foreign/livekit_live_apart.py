"""LiveKit's model of OpenAI Live, in an environment of its own: asks what a wave file says, and records the answer.

Called with the API's URL, the question and the answer (16 bits, mono, 24 kHz); prints the words.
"""

from __future__ import annotations

import asyncio
import sys
import wave

from livekit import rtc
from livekit.agents import llm
from livekit.plugins.openai.realtime import GPTLiveModel

RATE_HZ, FRAME_S, SECONDS = 24_000, 0.02, 10
FRAME_BYTES = int(RATE_HZ * FRAME_S) * 2


async def main(url: str, question: str, answer: str) -> int:
    with wave.open(question) as file:
        pcm = file.readframes(file.getnframes())
    model = GPTLiveModel(base_url=url, api_key="any")
    session, heard, errors = model.session(), bytearray(), []
    session.on("transcript_delta", lambda event: print(event.text, end="", flush=True))
    session.on("error", errors.append)
    await session._update_session(instructions="Be kind.", chat_ctx=llm.ChatContext.empty(), tools=[])

    async def listen() -> None:
        async for each in session.audio_stream:
            heard.extend(bytes(each.frame.data))

    listening = asyncio.create_task(listen())
    loop = asyncio.get_running_loop()
    due, over = loop.time(), loop.time() + SECONDS * 6
    while len(heard) < SECONDS * RATE_HZ * 2 and loop.time() < over:
        frame = pcm[:FRAME_BYTES].ljust(FRAME_BYTES, b"\0")
        if session.session_id is not None:
            pcm = pcm[FRAME_BYTES:]
            session.push_audio(rtc.AudioFrame(frame, RATE_HZ, 1, len(frame) // 2))
        due += FRAME_S
        await asyncio.sleep(max(0.0, due - loop.time()))
    await session.aclose()
    await model.aclose()
    listening.cancel()
    with wave.open(answer, "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes(heard)
    for error in errors:
        print(error, file=sys.stderr)
    return len(errors)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
