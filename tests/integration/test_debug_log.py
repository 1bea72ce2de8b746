"""The whole program at ``--log-level debug``: it tells what aiortc and aioice do, packet by packet, but no secret."""

from __future__ import annotations

import contextlib
from pathlib import Path

import aiohttp

from rtc_server.access import credentials
from rtc_server.client import VoiceClient
from tests.support.calls import offering
from tests.support.server_process import server_process

KEY = credentials.new_key()
SECRET = "the-secret-that-coturn-has-as-well"


async def at_openais_doors(http: aiohttp.ClientSession, url: str, key: str) -> list[str]:
    """Ask with a key in all the ways that OpenAI's clients have; the secret and the session that come of it."""
    bearer, made = {"Authorization": f"Bearer {key}"}, list[str]()
    async with http.post(f"{url}/v1/realtime/client_secrets", json={}, headers=bearer) as response:
        made += [secret] if (secret := (await response.json()).get("value")) else []
    for credential in (key, *made):
        for path in ("realtime", "live/sessions"):
            with contextlib.suppress(aiohttp.WSServerHandshakeError):
                offered = ("realtime", f"openai-insecure-api-key.{credential}")
                await http.ws_connect(f"{url}/v1/{path}", protocols=offered)
    async with offering() as offer:
        body = {"session": {"model": "echo"}, "transport": {"type": "webrtc", "sdp": offer["sdp"]}}
        async with http.post(f"{url}/v1/live/sessions", json=body, headers=bearer) as response:
            live = (await response.json()).get("session", {}).get("id")
    if live is not None:
        made.append(live.removeprefix("live_"))
        async with http.post(f"{url}/v1/live/sessions/{live}/hangup", headers=bearer) as response:
            assert response.status == 200
    return made


async def test_at_the_level_that_tells_everything_there_is_no_credential(tmp_path: Path) -> None:
    path = tmp_path / "auth.toml"
    path.write_text(f'[[keys]]\nname = "kiosk"\nhash = "{credentials.hash_of(KEY)}"\n')
    arguments = ("--model", "echo", "--log-level", "debug", "--auth", str(path), "--turn-urls", "turn:127.0.0.1:9")
    secret_file = tmp_path / "turn-secret"
    secret_file.write_text(SECRET)
    arguments += ("--turn-secret-file", str(secret_file))
    told = [KEY, KEY[:20], SECRET]
    async with server_process(*arguments) as server:
        await server.wait_ready()
        async with aiohttp.ClientSession() as http, VoiceClient(server.url, token=KEY) as client:
            await client.wait_for("connected")
            assert client.session is not None
            assert client._resume_token is not None
            told.append(client.session)
            told.append(client._resume_token)
            for key in (KEY, f"{KEY}x"):
                bearer = {"Authorization": f"Bearer {key}"}
                async with http.get(f"{server.url}/api/ice-servers", headers=bearer) as response:
                    body = await response.json()
                    told += [each["credential"] for each in body.get("ice_servers", ()) if "credential" in each]
                for query, protocols in ((f"?token={key}", ()), (f"?auth_id={key}", ()), ("", (f"bearer.{key}", "x"))):
                    with contextlib.suppress(aiohttp.WSServerHandshakeError):
                        await http.ws_connect(f"{server.url}/api/asr-streaming{query}", protocols=protocols)
                told += await at_openais_doors(http, server.url, key)
                events = f"{server.url}/api/sessions/{client.session}/events?token={key}"
                async with http.get(events) as response:
                    assert response.status == (200 if key == KEY else 401)
                async with (
                    offering() as offer,
                    http.post(
                        f"{server.url}/whip/echo",
                        data=offer["sdp"],
                        headers={"Content-Type": "application/sdp", **bearer},
                    ) as response,
                ):
                    assert response.status == (201 if key == KEY else 401)
            client.send({"type": "bye"})
            await client.wait_for("disconnected")
    log = "\n".join(server.log)
    assert len(told) == 8
    for name in ("DEBUG aioice", "DEBUG aiortc", "DEBUG rtc_server"):
        assert name in log, "it tells everything"
    for secret in told:
        assert secret not in log
