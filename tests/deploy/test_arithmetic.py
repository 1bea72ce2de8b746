"""The table of ``docs/scale.md`` follows from the figures that it names, and these are what was measured, or what the
code has."""

from __future__ import annotations

import re
from math import ceil, floor
from typing import Final

import pytest

from rtc_server import audio
from rtc_server.config import RelaySettings, Settings
from rtc_server.engine.owners import MAX_OWNERS
from tests.support.server_process import ROOT

SCALE: Final = (ROOT / "docs" / "scale.md").read_text()
MEASURED: Final = (ROOT / "docs" / "benchmarks.md").read_text()
BUSY: Final = 0.6
RELAYED: Final = 0.15
MOSHI_SLOTS: Final = 64
AROUND_BYTES: Final = 12 + 10 + 8 + 20
"""RTP, SRTP's authentication tag, UDP, IPv4."""
ROWS: Final = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in re.findall(r"^\| [\d,]+ \|.*$", SCALE, re.MULTILINE)
]


def measured(row: str, column: int) -> float:
    """The first number of a cell of ``docs/benchmarks.md``, of the first row that begins so."""
    (line, *_) = [line for line in MEASURED.splitlines() if line.startswith(f"| {row}")]
    (number,) = re.findall(r"^[\d.]+", line.strip("|").split("|")[column].strip())
    return float(number)


CALL = measured("server CPU per session", 3) / 100, measured("/api/offer (WebRTC) ", 4) / 100
"""Of a core, on the fastest and on the slowest machine."""
CLIENT_MBIT: Final = (Settings().bitrate_bps + AROUND_BYTES * 8 * 1000 / audio.PACKET_MS) / 1e6
ENGINE_MBIT: Final = audio.FRAME_SAMPLES * 4 * 8 / audio.FRAME_MS / 1000
RELAY: Final = measured("coturn, of a core", 3) / 100
PICO: Final = 4


def number(text: str) -> float:
    return float(text.replace(",", ""))


def test_the_figures_are_those_that_were_measured() -> None:
    for text in (
        f"{CALL[0]:.1%}".replace("%", " %"),
        f"{CALL[1]:.1%}".replace("%", " %"),
        f"{floor(BUSY / CALL[0])} calls, or {floor(BUSY / CALL[1])}",
        f"are {CLIENT_MBIT * 1000:.0f} kbit/s each way",
        f"{ENGINE_MBIT:.3f} Mbit/s each way",
        f"{RELAY:.1%}".replace("%", " %"),
        f"An engine takes {MAX_OWNERS} media processes",
        f"**`--max-sessions`** ({Settings().max_sessions})",
    ):
        assert text in SCALE, text
    low, high = map(int, RelaySettings().turn_relay_ports.split("-"))
    assert f"has {high - low + 1} places" in SCALE


def test_pico_has_the_time_for_as_many_as_the_table_says() -> None:
    """Four frames every 80 ms, by steps of so many rows and so long, are less than a core."""
    table = MEASURED.partition("--arch pico --slots 1,2,4 --seconds 10")[2].partition("The tiny checkpoint")[0]
    (line,) = [line for line in table.splitlines() if re.match(r"\| this server's engine +\| 4 ", line)]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    step_ms, rows = float(cells[2].split()[0]), float(cells[6].split()[0])
    assert PICO / rows * step_ms < audio.FRAME_MS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_row_follows(row: list[str]) -> None:
    calls = number(row[0])

    def of(share: float) -> int:
        return ceil(round(calls * share, 6))

    assert [number(each) for each in row[1].split(" to ")] == [of(share / BUSY) for share in CALL]
    assert number(row[2]) == pytest.approx(calls * CLIENT_MBIT, rel=0.05)
    assert number(row[3]) == pytest.approx(calls * ENGINE_MBIT, rel=0.05)
    assert number(row[4]) == of(1 / PICO)
    assert number(row[5]) == of(1 / MOSHI_SLOTS)
    assert number(row[6]) == of(RELAYED * RELAY / BUSY)
    assert [number(each) for each in row[7].split(" to ")] == [
        of(1 / (MAX_OWNERS * floor(BUSY / share))) for share in CALL
    ]


def test_the_table_goes_up_to_a_hundred_thousand() -> None:
    assert [number(row[0]) for row in ROWS] == [10, 100, 1_000, 10_000, 100_000]
