"""A constant of the page's modules that a test shortens, so that it need not wait for what people do."""

from __future__ import annotations

import re

from playwright.async_api import Page, Route


async def with_constant(page: Page, module: str, name: str, value: int) -> None:
    """The page loads ``static/{module}.js`` with this number in the place of its own. Raises AssertionError in the test
    that visits it, by a module that does not load, if there is no such constant."""

    async def amended(route: Route) -> None:
        response = await route.fetch()
        text, found = re.subn(rf"(?m)^((?:export )?const {name} = )[\d_]+;", rf"\g<1>{value};", await response.text())
        assert found == 1, f"{module}.js has no constant {name}"
        await route.fulfill(response=response, body=text)

    await page.route(f"**/static/{module}.js", amended)
