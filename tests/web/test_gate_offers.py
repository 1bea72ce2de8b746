"""The access control before small handlers of our own: how many offers an address may make, and whose address it is."""

from __future__ import annotations

import asyncio

import pytest

from rtc_server.access.addresses import Proxies
from rtc_server.errors import RateLimited
from tests.support.gate import KEY, Clock, bearer, door, doorkeeper


@pytest.mark.parametrize("path", ["/api/offer", "/whip/echo", "/whep/x"])
async def test_offers_are_counted_by_address(path: str) -> None:
    """Ten at once, one a second after that; another address is served all the while."""
    access = doorkeeper(per_minute=20)
    clock = access.clock
    assert isinstance(clock, Clock)
    async with door(access) as at:
        one, other = {"X_Forwarded_For": "198.51.100.1"}, {"X_Forwarded_For": "198.51.100.2"}
        assert [(await at.ask("POST", path, **one))[0] for _ in range(12)] == [200] * 10 + [429] * 2
        status, headers, body = await at.ask("POST", path, **one)
        assert (status, headers["Retry-After"]) == (429, "3")
        error = body if path.startswith("/wh") else body["error"]
        assert error["code"] == "rate_limited"
        assert "offers" in error.get("message", error.get("detail"))
        assert (await at.ask("POST", path, **other))[0] == 200
        clock.now += 3
        assert [(await at.ask("POST", path, **one))[0] for _ in range(2)] == [200, 429]
        assert (await at.ask("GET", "/api/config", **one))[0] == 200
        assert (await at.ask("DELETE", "/api/sessions/x", **one))[0] == 200


async def test_ten_thousand_offers_from_one_address() -> None:
    """Each is refused before a key is looked at or a body is read, and who else comes is served."""
    access = doorkeeper(keys=True, per_minute=60)
    async with door(access) as at:
        one, other = {"X_Forwarded_For": "198.51.100.1"}, {"X_Forwarded_For": "198.51.100.2"}
        statuses = [(await at.ask("POST", "/api/offer", b"{}", **one))[0] for _ in range(40)]
        assert statuses == [401] * 30 + [429] * 10
        for _ in range(9_000):
            assert access.offers.wait_s("198.51.100.1", access.clock()) > 0
        refused = await asyncio.gather(
            *(at.ask("POST", "/api/offer", b"x" * 900, **one, **bearer(KEY)) for _ in range(500))
        )
        assert {status for status, _, _ in refused} == {429}
        assert not at.served
        assert (await at.ask("POST", "/api/offer", **other, **bearer(KEY)))[0] == 200
        assert len(at.served) == 1


async def test_the_body_of_a_refused_offer_is_not_waited_for() -> None:
    async with door(doorkeeper(per_minute=1)) as at:
        for _ in range(10):
            await at.ask("POST", "/api/offer")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(at.url.rsplit(":", 1)[1]))
        writer.write(b"POST /api/offer HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n")
        async with asyncio.timeout(5):
            assert b" 429 " in await reader.readline()
        writer.close()


async def test_who_is_no_proxy_cannot_pass_for_another() -> None:
    """By making up an address for each offer."""
    async with door(doorkeeper(per_minute=1, proxies=Proxies())) as at:
        statuses = [(await at.ask("POST", "/api/offer", X_Forwarded_For=f"198.51.100.{n}"))[0] for n in range(12)]
        assert statuses == [200] * 10 + [429] * 2
        assert {address for address, _ in at.served} == {"127.0.0.1"}


async def test_behind_a_proxy_the_made_up_part_does_not_count() -> None:
    async with door(doorkeeper(per_minute=1)) as at:
        made_up = [f"203.0.113.{n}, 198.51.100.1" for n in range(12)]
        statuses = [(await at.ask("POST", "/api/offer", X_Forwarded_For=chain))[0] for chain in made_up]
        assert statuses == [200] * 10 + [429] * 2
        assert {address for address, _ in at.served} == {"198.51.100.1"}


async def test_addresses_of_one_ipv6_network_are_one() -> None:
    async with door(doorkeeper(per_minute=1)) as at:
        chains = [f"2001:db8:1:2::{n:x}" for n in range(12)]
        statuses = [(await at.ask("POST", "/api/offer", X_Forwarded_For=chain))[0] for chain in chains]
        assert statuses == [200] * 10 + [429] * 2


def test_retry_after_is_the_wait_and_else_what_it_always_was() -> None:
    assert RateLimited("Slow down.", retry_after_s=3).retry_after_s == 3
    assert RateLimited().retry_after_s == 5
