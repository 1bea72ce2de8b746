"""A real nginx in front of a server, configured as ``docs/deploy.md`` has it, but for names, ports and certificates."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PREFIX: Final = "/voice"
_DEPLOY: Final = Path(__file__).parents[2] / "docs" / "deploy.md"
_AROUND: Final = """
daemon off;
master_process off;
pid {where}/pid;
error_log {where}/error.log info;
events {{}}
http {{
    types {{ text/html html; }}
    {paths}
    {voice}
}}
"""
_PATHS: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True, slots=True)
class Nginx:
    """``port``: where it listens, on loopback; the server is at its root and under :data:`PREFIX`."""

    port: int
    directory: Path

    def url(self, prefix: str = "") -> str:
        return f"http://localhost:{self.port}{prefix}"

    @property
    def access_log(self) -> str:
        return (self.directory / "voice.log").read_text()


def nginx_before(server_port: int, where: Path) -> contextlib.AbstractAsyncContextManager[Nginx]:
    """As ``docs/deploy.md`` has it."""
    return nginx_with(_documented(server_port, where), where)


@contextlib.asynccontextmanager
async def nginx_with(text: str, where: Path) -> AsyncIterator[Nginx]:
    """Runs inside, and has ended after it; ``{port}`` in ``text`` is where it listens."""
    nginx = Nginx(_free_port(), where)
    config = where / "nginx.conf"
    paths = "\n".join(f"{name}_temp_path {where}/{name};" for name in _PATHS)
    voice = text.replace("{port}", str(nginx.port))
    config.write_text(_AROUND.format(where=where, paths=paths, voice=voice))
    process = await asyncio.create_subprocess_exec(
        *("nginx", "-p", str(where), "-c", str(config), "-e", str(where / "error.log")),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await _until_it_listens(nginx, process)
        yield nginx
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _documented(server_port: int, where: Path) -> str:
    """The block of the documentation, with the location that it has in a comment."""
    found = re.search(r"```nginx\n(.*?)```", _DEPLOY.read_text(), re.DOTALL)
    assert found is not None
    text = re.sub(r"# (location /voice/ )", r"\1", found[1])
    for documented, here in (
        ("listen 443 ssl;", "listen 127.0.0.1:{port};"),
        ("server_name voice.example.org;", "server_name localhost;"),
        ("127.0.0.1:8080", f"127.0.0.1:{server_port}"),
        ("/var/log/nginx/", f"{where}/"),
    ):
        assert documented in text, documented
        text = text.replace(documented, here)
    return re.sub(r"\n *ssl_certificate.*", "", text)


async def _until_it_listens(nginx: Nginx, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(20):
        while process.returncode is None:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", nginx.port)
                writer.close()
                return
            await asyncio.sleep(0.02)
    raise AssertionError((nginx.directory / "error.log").read_text())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
