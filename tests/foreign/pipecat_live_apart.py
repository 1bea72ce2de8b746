"""Pipecat's service for OpenAI Live, called as :mod:`apart` says, with the WebSocket's URL."""

from __future__ import annotations

import asyncio
import sys

from pipecat.services.openai.live.llm import OpenAILiveLLMService
from pipecat_apart import ask_service


async def main(url: str, *files: str) -> int:
    service, started = OpenAILiveLLMService(api_key="any", base_url=url), asyncio.Event()
    service.add_event_handler("on_session_started", lambda *_: started.set())
    return await ask_service(service, files, started)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
