"""Pipecat's service for OpenAI Live, in an environment of its own: asks what a wave file says, and records the answer.

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
    OutputAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.live.llm import OpenAILiveLLMService
from pipecat.workers.runner import WorkerRunner

RATE_HZ, FRAME_S, SECONDS = 24_000, 0.02, 10
FRAME_BYTES = int(RATE_HZ * FRAME_S) * 2


class Recorder(FrameProcessor):
    """At the end of the pipeline: what is said, and what goes wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = b""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, OutputAudioRawFrame):
            self.heard += frame.audio
        elif isinstance(frame, TTSTextFrame):
            print(frame.text, end="", flush=True)
        await self.push_frame(frame, direction)


async def main(url: str, question: str, answer: str) -> int:
    logger.remove()
    with wave.open(question) as file:
        pcm = file.readframes(file.getnframes())
    service, recorder = OpenAILiveLLMService(api_key="any", base_url=url), Recorder()
    started, errors = asyncio.Event(), []
    service.add_event_handler("on_session_started", lambda *_: started.set())
    worker = PipelineWorker(Pipeline([service, recorder]), cancel_on_idle_timeout=False)
    worker.add_event_handler("on_pipeline_error", lambda _, frame: errors.append(frame.error))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    await worker.queue_frame(LLMContextFrame(LLMContext([{"role": "user", "content": "We were talking of sums."}])))
    await asyncio.wait_for(started.wait(), 20)
    due = asyncio.get_running_loop().time()
    while len(recorder.heard) < SECONDS * RATE_HZ * 2 and not running.done():
        frame, pcm = pcm[:FRAME_BYTES].ljust(FRAME_BYTES, b"\0"), pcm[FRAME_BYTES:]
        await worker.queue_frame(InputAudioRawFrame(frame, RATE_HZ, 1))
        due += FRAME_S
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
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
