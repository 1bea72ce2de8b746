"""Errors are answered in the envelope that an endpoint declares, and say nothing of a fault of ours."""

from __future__ import annotations

import pytest

from tests.support.gate import ALLOWED, KEY, bearer, door, doorkeeper


async def test_errors_under_v1_are_those_of_openai() -> None:
    """Whatever the error is, and for paths that there are not."""
    async with door(doorkeeper(keys=True)) as at:
        status, _, body = await at.ask("GET", "/v1/nothing")
        assert status == 401
        assert body["error"] == {
            "message": "This server wants a key or a token.",
            "type": "invalid_request_error",
            "code": "invalid_api_key",
            "param": None,
        }
        for method, path, status, code in (
            ("GET", "/v1/nothing", 404, "not_found"),
            ("POST", "/v1/models", 405, "method_not_allowed"),
            ("GET", "/v1/broken", 500, "internal"),
        ):
            answered, _, body = await at.ask(method, path, **bearer(KEY))
            assert (answered, body["error"]["code"]) == (status, code)
            assert set(body["error"]) == {"message", "type", "code", "param"}


async def test_errors_at_the_doors_of_whip_are_problem_details() -> None:
    """RFC 9457. Whatever the error is, and for paths that there are not."""
    async with door(doorkeeper(keys=True)) as at:
        for method, path, status, code in (
            ("POST", "/whip/echo", 401, "unauthorized"),
            ("POST", "/whep/x", 401, "unauthorized"),
            ("GET", "/whip/nothing/here", 401, "unauthorized"),
        ):
            answered, headers, body = await at.ask(method, path)
            assert answered == status
            assert headers["Content-Type"].startswith("application/problem+json")
            assert set(body) == {"type", "title", "status", "detail", "code", "retryable"}
            assert (body["type"], body["title"], body["status"]) == ("about:blank", "Unauthorized", 401)
            assert (body["code"], body["retryable"]) == (code, False)
        answered, headers, body = await at.ask("PUT", "/whip/echo", **bearer(KEY))
        assert (answered, body["code"], set(headers["Allow"].split(","))) == (
            405,
            "method_not_allowed",
            {"POST", "OPTIONS"},
        )


@pytest.mark.parametrize("path", ["/whipped", "/api/whip", "/WHIP/echo", "/"])
async def test_elsewhere_they_are_not(path: str) -> None:
    async with door(doorkeeper()) as at:
        status, headers, body = await at.ask("PATCH", path)
        assert status in (404, 405)
        assert headers["Content-Type"].startswith("application/json")
        assert set(body) == {"error"}


async def test_a_fault_of_ours_says_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    async with door(doorkeeper(keys=True)) as at:
        status, headers, body = await at.ask("GET", f"/broken?token={KEY}", Origin=ALLOWED, **bearer(KEY))
        assert (status, body["error"]["code"]) == (500, "internal")
        assert "secret" not in str(body)
        assert headers["Access-Control-Allow-Origin"] == ALLOWED
    assert "ZeroDivisionError" in caplog.text
    assert "GET /broken failed" in caplog.text
    assert KEY not in caplog.text
