"""The Redis in which rooms last, and whether it answers. Owns its connections. Knows nothing of rooms.

Each question has a deadline: a Redis that hangs costs no request more than that, and the next none at all, for until it
answers again nothing is asked of it but whether it does.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from rtc_server.config import Settings
from rtc_server.errors import ConfigError, RoomsPaused
from rtc_server.usage import invocation

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

DEADLINE_S: Final = 2.0
_CONNECT_S: Final = 1.0
_MOST_CONNECTIONS: Final = 16

Command = Sequence[str | bytes | int]


class Store:
    """``url``: ``redis://``, ``rediss://`` or ``unix://``, without a password. Connects when it is first asked."""

    def __init__(self, url: str, password: str = "") -> None:
        self._url = url
        self._password = password
        self._redis: Redis | None = None
        self._error: type[Exception] = OSError
        self._scripts: dict[str, Any] = {}
        self._answers = asyncio.Event()
        self._known = asyncio.Event()
        self.watch: Callable[[bool], None] = lambda answers: None
        """Called when it answers no more, and when it does again."""

    @property
    def answers(self) -> bool:
        """Whether it has answered when it was last asked."""
        return self._answers.is_set()

    def require(self) -> None:
        """Raises RoomsPaused while it does not answer."""
        if not self.answers:
            raise RoomsPaused

    async def wait_known(self) -> None:
        """Until it has answered for the first time, or has not."""
        await self._known.wait()

    async def wait_back(self) -> None:
        """Until it answers."""
        await self._answers.wait()

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Any:
        """A Lua script's answer. Raises RoomsPaused where there is none in time: it may have run all the same."""
        made = self._scripts.get(script)
        if made is None:
            made = self._scripts[script] = self._client().register_script(script)
        return await self._ask(lambda: made(keys=keys, args=arguments))

    async def ask(self, *commands: Command) -> list[Any]:
        """The answers to commands, which go together. Raises RoomsPaused."""
        pipeline = self._client().pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await self._ask(pipeline.execute)
        return answers

    async def close(self) -> None:
        """Idempotent."""
        redis, self._redis = self._redis, None
        self._scripts.clear()
        if redis is not None:
            await redis.aclose()

    async def _ask(self, question: Callable[[], Awaitable[Any]]) -> Any:
        asking = asyncio.current_task()
        assert asking is not None
        cancelled_before = asking.cancelling()
        try:
            async with asyncio.timeout(DEADLINE_S):
                answer = await question()
        except (self._error, OSError, TimeoutError) as error:
            self._note(False, str(error) or type(error).__name__)
            raise RoomsPaused from None
        finally:
            # redis-py writes inside asyncio.wait_for, which in Python 3.11 forgets a cancellation that comes as the
            # writing ends (python/cpython#86296): the task would go on for ever, and what waits for its end with it.
            if asking.cancelling() > cancelled_before:
                raise asyncio.CancelledError
        self._note(True)
        return answer

    def _note(self, answers: bool, why: str = "") -> None:
        if self._known.is_set() and answers == self.answers:
            return
        if answers:
            logger.info("Redis answers%s", " again" if self._known.is_set() else "")
            self._answers.set()
        else:
            logger.warning("Redis does not answer (%s): rooms are paused", why)
            self._answers.clear()
        self._known.set()
        self.watch(answers)

    def _client(self) -> Redis:
        if self._redis is None:
            # A server without --redis does without the package.
            redis: Any = importlib.import_module("redis.asyncio")
            retry: Any = importlib.import_module("redis.asyncio.retry")
            backoff: Any = importlib.import_module("redis.backoff")
            self._error = redis.RedisError
            pool = redis.BlockingConnectionPool.from_url(
                self._url,
                password=self._password or None,
                max_connections=_MOST_CONNECTIONS,
                timeout=DEADLINE_S,
                socket_timeout=DEADLINE_S,
                socket_connect_timeout=_CONNECT_S,
                retry=retry.Retry(backoff.NoBackoff(), 1),  # a connection of before a restart
            )
            self._redis = redis.Redis.from_pool(pool)
        return self._redis


def make_store(settings: Settings) -> Store | None:
    """That of ``--redis``, not connected yet; None without. Raises ConfigError."""
    if not settings.redis:
        return None
    parts = urlsplit(settings.redis)
    if parts.scheme not in ("redis", "rediss", "unix") or not (parts.hostname or parts.scheme == "unix"):
        raise ConfigError("--redis is none of redis://HOST:PORT/DB, rediss://HOST:PORT/DB and unix://PATH.")
    if parts.password or re.search(r"(^|&)password=", parts.query):
        raise ConfigError(
            "--redis has a password in it, which others would see.",
            hint="Put it into RTC_SERVER_REDIS_PASSWORD, or into a file for --redis-password-file.",
        )
    if importlib.util.find_spec("redis") is None:
        raise ConfigError(
            "--redis wants the package redis, which is not installed.", hint=invocation.how_to_install("redis")
        )
    return Store(settings.redis, _password(settings))


def _password(settings: Settings) -> str:
    """Empty for none. Raises ConfigError."""
    path = settings.redis_password_file
    if not path:
        return settings.redis_password
    if settings.redis_password:
        raise ConfigError("RTC_SERVER_REDIS_PASSWORD and --redis-password-file are both set: one of them is enough.")
    try:
        password = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"--redis-password-file {path} cannot be read: {reason}.") from error
    if not password:
        raise ConfigError(f"--redis-password-file {path} is empty.")
    return password
