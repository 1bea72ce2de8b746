"""The engine plane: slots, the step loop, the process that holds the accelerator, and its client.

Never imports aiohttp or aiortc. Models are handed in; the engine knows them by
:class:`rtc_server.engine.model.StreamingModel` alone.
"""
