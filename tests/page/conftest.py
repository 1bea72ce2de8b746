"""The modules of the page that have no page, in Node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.page_modules import PageModules, page_modules


@pytest.fixture
def modules(tmp_path: Path) -> Iterator[PageModules]:
    with page_modules(tmp_path) as running:
        yield running
