"""Pipecat's service for OpenAI Realtime, called as :mod:`apart` says, with the WebSocket's URL."""

from __future__ import annotations

import asyncio
import sys

from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat_apart import ask_service


async def main(url: str, *files: str) -> int:
    return await ask_service(OpenAIRealtimeLLMService(api_key="any", base_url=url), files)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
