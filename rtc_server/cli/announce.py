"""The start banner: tells the operator at which addresses the server runs, and which model it runs on what."""

from __future__ import annotations

import io
import sys
import textwrap
from typing import Final

import segno

from rtc_server.access import addresses
from rtc_server.access.hosts import parse_public_url
from rtc_server.app import Server
from rtc_server.config import speaking_command
from rtc_server.engine.model import ModelInfo
from rtc_server.system import hardware
from rtc_server.usage import invocation
from rtc_server.web.listening import ALL, ALL_IPV4

_WIDTH: Final = 80
_PHRASES: Final = 3


def announce(server: Server) -> None:
    """Print where the server is, which model runs, and on what."""
    here, others = _urls(server)
    print(f"\n  Open {here} in a browser and talk.")
    if others:
        print(f"  From a phone or another machine: {' or '.join(others)}")
        if not others[0].startswith("https:"):
            print("  There, browsers keep the microphone from pages without HTTPS. For a trial: --tls self-signed")
        else:
            _print_qr_code(others[0])
    if server.rooms is not None:
        print(f"  Translated rooms: {(others[0] if others else here).rstrip('/')}/rooms.html")
    if server.certificate is not None and server.certificate.self_made:
        print(
            "\n  Your browser will warn that the connection is not private. That is to be expected: this machine made"
        )
        print(
            "  its certificate itself, so no authority vouches for it. Choose 'Advanced' and go on to the page (iPhone:"
        )
        print("  'Show Details', 'visit this website'). It asks once on each device. To be sure, compare the SHA-256:")
        print(f"  {server.certificate.sha256()}")
    print()
    for engine in server.engines.values():
        if engine.info is not None:
            print(f"  service {engine.service}: {engine.info.name} on {engine.info.device}, {engine.info.slots} slots")
    if server.admission.default_service == "echo":
        print("\n  No speech model is loaded: you hear yourself. With one:")
        print(f"    {speaking_command()}")
    default = server.engines.get(server.admission.default_service)
    if default is not None and default.info is not None:
        _print_about(default.info)
    print(flush=True)


def _print_about(info: ModelInfo) -> None:
    """Print the notice of the model's makers, and a phrase to try first."""
    if info.notice:
        print("\n" + textwrap.fill(info.notice, _WIDTH, initial_indent="  ", subsequent_indent="  "))
    if info.hint:
        print(f"    {invocation.shown(info.hint)}")
    if info.examples:
        phrases = [f'"{example.say[0]}"' for example in info.examples[:_PHRASES]]
        print(f"\n  Try saying: {', '.join(phrases)}.")


def _urls(server: Server) -> tuple[str, list[str]]:
    """For a browser on this machine, and for those of others, where they can reach it: of each family that is listened
    on, the best."""
    here, others = _own_urls(server)
    public = server.settings.public_url
    return here, [parse_public_url(public).text] if public else others


def _own_urls(server: Server) -> tuple[str, list[str]]:
    host = server.settings.host
    if all(map(addresses.is_loopback, server.addresses)):
        # localhost may be ::1 first: an unusual address is named as it is.
        usual = {"127.0.0.1", "::1"} & set(server.addresses)
        return _url(server, "localhost" if usual and host in ("127.0.0.1", "::1", "localhost") else host), []
    if not set(ALL) & set(server.addresses):
        return _url(server, host), [_url(server, host)]
    here = "localhost" if ALL_IPV4 in server.addresses else "::1"
    return _url(server, here), [_url(server, name) for name in _outside_names(server)]


def _outside_names(server: Server) -> list[str]:
    """Names of this machine for others: those a bought certificate is for, else its own addresses."""
    certificate = server.certificate
    if certificate is not None and not certificate.self_made:
        return [name for name in certificate.names() if "*" not in name][:1]
    families = {":" in each for each in server.addresses}
    return [address for address in hardware.routed_addresses() if (":" in address) in families]


def _url(server: Server, host: str) -> str:
    scheme, usual = ("http", 80) if server.certificate is None else ("https", 443)
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}" if server.port == usual else f"{scheme}://{name}:{server.port}"


def _print_qr_code(url: str) -> None:
    """At a terminal that has the characters."""
    if not sys.stdout.isatty():
        return
    drawn = io.StringIO()
    segno.make(url, error="m").terminal(drawn, compact=True)
    # White blocks on black, whatever the terminal's colours are.
    lines = [f"  \x1b[97;40m{line}\x1b[0m" for line in drawn.getvalue().splitlines()]
    try:
        print("\n" + "\n".join(lines))
    except UnicodeEncodeError:
        return
