"""How a page is measured: the screens it has to fit, and scripts that find what does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from playwright.async_api import Page, ViewportSize

PHONE = ViewportSize(width=390, height=844)
NARROW = ViewportSize(width=320, height=568)
ZOOMED = ViewportSize(width=320, height=256)
"""1280 x 1024 at 400 %: WCAG 2.2, 1.4.10."""
DESKTOP = ViewportSize(width=1200, height=900)
TOUCH_PX = 44
"""What a finger hits: WCAG 2.2, 2.5.5."""
CONTRAST = 4.5
"""Of text with its ground: WCAG 2.2, 1.4.3."""

TOO_WIDE = """
() => [...document.querySelectorAll('body *')]
  .filter((element) => element.checkVisibility() && !element.closest('.visually-hidden'))
  .filter((element) => {
    const { left, right } = element.getBoundingClientRect();
    return left < -0.5 || right > document.documentElement.clientWidth + 0.5;
  })
  .filter((element) => !element.closest('.orb'))  // a glow may reach over the edge
  .map((element) => element.outerHTML.slice(0, 120))
"""

TOO_SMALL = """
(least) => [...document.querySelectorAll('a[href], button, select, input, summary')]
  .filter((element) => element.checkVisibility())
  .filter((element) => {
    const { width, height } = element.getBoundingClientRect();
    return Math.min(width, height) < least;
  })
  .map((element) => element.outerHTML.slice(0, 120))
"""

# Every text that can be read, with its contrast; what cannot be pressed is exempt.
CONTRASTS = """
() => {
  const rgba = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = (top, ground) => top.slice(0, 3).map((value, i) => value * top[3] + ground[i] * (1 - top[3]));
  const luminance = (colour) => {
    const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const colour = rgba(getComputedStyle(element).backgroundColor);
    return colour[3] === 1 ? colour.slice(0, 3) : over(colour, ground(element.parentElement));
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility()) continue;
    if (element.closest('.visually-hidden, script, noscript, option, :disabled, [aria-disabled=true]')) continue;
    const behind = ground(element);
    const style = getComputedStyle(element);
    const [r, g, b, a] = rgba(style.color);
    const ink = over([r, g, b, a * Number(style.opacity)], behind);
    const [light, dark] = [luminance(ink), luminance(behind)].sort((x, y) => y - x);
    found.push([node.data.trim().slice(0, 40), (light + 0.05) / (dark + 0.05)]);
  }
  return found;
}
"""


async def in_each_scheme(page: Page) -> AsyncIterator[str]:
    """The schemes in which a page has to look well, once it has taken on the colours of each."""
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        await page.wait_for_function("() => document.getAnimations().length === 0")
        yield scheme


async def sense_to_the_ear(page: Page) -> list[tuple[str, str, dict[str, Any]]]:
    """What a screen reader has of the page: role, name and properties of each node."""
    devtools = await page.context.new_cdp_session(page)
    tree = (await devtools.send("Accessibility.getFullAXTree"))["nodes"]
    return [
        (node["role"]["value"], node.get("name", {}).get("value", "").strip(), _properties(node))
        for node in tree
        if not node["ignored"]
    ]


def _properties(node: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry["value"].get("value") for entry in node.get("properties", [])}
