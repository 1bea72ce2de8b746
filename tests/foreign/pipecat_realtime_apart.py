"""Pipecat's service for OpenAI Realtime, in an environment of its own: asks what a wave file says, records the answer.

Called with the WebSocket's URL, the question and the answer (16 bits, mono, 24 kHz); prints the words.
"""

from __future__ import annotations

import asyncio
import sys
import wave

from loguru import logger
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

RATE_HZ, FRAME_S, PATIENCE_S = 24_000, 0.02, 60
FRAME_BYTES = int(RATE_HZ * FRAME_S) * 2


class Recorder(FrameProcessor):
    """At the end of the pipeline: what is said, and when it is over."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = b""
        self.over = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self.heard += frame.audio
        elif isinstance(frame, TTSTextFrame):
            print(frame.text, end="", flush=True)
        elif isinstance(frame, LLMFullResponseEndFrame) and self.heard:
            self.over.set()
        await self.push_frame(frame, direction)


async def main(url: str, question: str, answer: str) -> int:
    logger.remove()
    with wave.open(question) as file:
        pcm = file.readframes(file.getnframes())
    service, recorder = OpenAIRealtimeLLMService(api_key="any", base_url=url), Recorder()
    worker = PipelineWorker(Pipeline([service, recorder]), cancel_on_idle_timeout=False)
    errors: list[str] = []
    worker.add_event_handler("on_pipeline_error", lambda _, frame: errors.append(frame.error))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    await worker.queue_frame(LLMContextFrame(LLMContext([{"role": "user", "content": "We were talking of sums."}])))
    loop = asyncio.get_running_loop()
    due, late = loop.time(), loop.time() + PATIENCE_S
    while not recorder.over.is_set() and not running.done() and loop.time() < late:
        frame, pcm = pcm[:FRAME_BYTES].ljust(FRAME_BYTES, b"\0"), pcm[FRAME_BYTES:]
        await worker.queue_frame(InputAudioRawFrame(frame, RATE_HZ, 1))
        due += FRAME_S
        await asyncio.sleep(max(0.0, due - loop.time()))
    await worker.queue_frame(EndFrame())
    await running
    with wave.open(answer, "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes(recorder.heard)
    for error in errors:
        print(error, file=sys.stderr)
    return len(errors)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
