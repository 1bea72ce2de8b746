"""The documents agree: links lead somewhere, and docs/clients.md covers docs/protocol.md and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from tests.support.server_process import ROOT

PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
CLIENTS = (ROOT / "docs" / "clients.md").read_text()
DOCUMENTS = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])

# Fields of the W3C's RTCIceServer, and a name for a track that is not seen.
NOT_OURS = {"urls", "username", "credential", "microphone"}


def blocks(language: str, text: str = CLIENTS) -> list[str]:
    """The fenced code blocks in a language. Those within lists, which are indented, are left out."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """A document without its code blocks, whose lines are no headings and no links."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def first_column(text: str, heading: str, table: int = 0) -> list[str]:
    """The names in backquotes in the first column of a table below a heading."""
    lines = iter(text.split(f"\n{heading}\n", 1)[1].splitlines())
    for _ in range(table + 1):
        next(line for line in lines if line.startswith("|"))  # the table's own heading
        rows = list(takewhile(lambda line: line.startswith("|"), lines))
    return [name for row in rows for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])]


def anchors(text: str) -> Iterator[str]:
    """Of the headings, as GitHub makes them."""
    for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (document.parent / path) if path else document
        assert target.exists(), link
        assert not fragment or fragment in anchors(target.read_text()), link


def test_there_is_something_to_do_about_every_error() -> None:
    told = first_column(CLIENTS, "## Errors")
    assert sorted(told) == sorted(first_column(PROTOCOL, "## 4. Error codes"))


def test_there_is_something_to_do_about_every_event() -> None:
    told = first_column(CLIENTS, "## Events")
    assert sorted(told) == sorted(first_column(PROTOCOL, "## 2. Data channel `text`: server to client"))


def test_there_is_something_to_do_about_every_end() -> None:
    (reasons,) = re.findall(r"^`reason` of `disconnected`: (.*)$", PROTOCOL, re.MULTILINE)
    told = first_column(CLIENTS, "## Events", table=1)
    assert sorted(told) == sorted(re.findall(r"`([a-z_]+)`", reasons.replace("(the client asked)", "")))


@pytest.mark.parametrize("language", ["swift", "kotlin"])
def test_examples_that_nobody_compiles_speak_the_protocol(language: str) -> None:
    """Their requests, headers and fields are the protocol's."""
    (code,) = blocks(language)
    code = re.sub(r"//.*$|/\*.*?\*/", "", code, flags=re.MULTILINE)
    literals = set(re.findall(r'"((?:[^"\\\n]|\\.)*)"', code))
    requests = set(re.findall(r'"(GET|POST|PATCH|DELETE)", "(/[^"]*)"', code))
    assert {path for _, path in requests} == {literal for literal in literals if literal.startswith("/")}
    for method, path in requests:
        template = re.sub(r"\\\(.*?\)|\$\w+", "{id}", path)
        assert f"`{method} {template}`" in PROTOCOL
    assert {method for method, _ in requests} == {"GET", "POST", "PATCH", "DELETE"}
    names = {literal for literal in literals if re.fullmatch(r"[a-z]\w*", literal)} - NOT_OURS
    headers = {literal for literal in literals if re.fullmatch(r"[A-Z]\w*(-\w+)*", literal)}
    assert names >= {"sdp", "type", "resume", "session", "token", "last_seq", "candidates", "seq", "ice_servers"}
    assert headers >= {"Authorization", "If-Match", "ETag", "Retry-After"}
    assert "application/json" in literals
    for name in names:
        assert re.search(rf'["`]{name}["`]', PROTOCOL), name
    for header in headers - {"GET", "POST", "PATCH", "DELETE"}:
        assert header in PROTOCOL, header
