"""Networks by name. What a person would call them, in figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lab.network.link import LinkSettings


@dataclass(frozen=True, slots=True)
class Profile:
    """``up``: client to server. ``down``: server to client."""

    name: str
    up: LinkSettings
    down: LinkSettings

    def describe(self) -> str:
        return f"{self.name}: {_describe(self.up)}" + (
            " each way" if self.up == self.down else f" up, {_describe(self.down)} down"
        )


def _describe(link: LinkSettings) -> str:
    parts = [f"{link.delay_ms:g} ± {link.jitter_ms:g} ms", f"{link.loss:.1%} loss"]
    if link.loss_run:
        parts.append(f"in runs of {link.loss_run:g}")
    if link.reorder:
        parts.append(f"{link.reorder:.0%} reordered by {link.reorder_ms:g} ms")
    if link.duplicate:
        parts.append(f"{link.duplicate:.0%} duplicated")
    if link.rate_kbps:
        parts.append(f"{link.rate_kbps:g} kb/s")
    parts += [f"out for {outage.length_s:g} s at {outage.start_s:g} s" for outage in link.outages]
    return ", ".join(parts)


def _both(name: str, round_trip_ms: float, jitter_ms: float, loss: float) -> Profile:
    """Half the delay each way; the jitter and the loss on each way. Radio links deliver in order."""
    link = LinkSettings(delay_ms=round_trip_ms / 2, jitter_ms=jitter_ms, loss=loss, in_order=True)
    return Profile(name, link, link)


# Round trips and losses are those of the project's own goals. The jitter is our choice: the scatter that a
# link's layer-2 repeats and its scheduler make, some milliseconds on Wi-Fi, tens on a phone's network.
PROFILES: Final = {
    profile.name: profile
    for profile in (
        _both("clean", 0, 0, 0.0),
        _both("wifi", 40, 5, 0.002),
        _both("lossy-wifi", 40, 10, 0.05),
        _both("3g", 250, 25, 0.015),
        _both("poor-4g", 350, 40, 0.05),
        _both("bad-4g", 200, 40, 0.20),
    )
}
