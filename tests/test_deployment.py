"""What people deploy with, read as they would use it: every setting in it exists, and no secret is in it.

No image is built here: there is not always a container engine where the tests run.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder

from rtc_server import config
from rtc_server.cli.main import _parser
from rtc_server.config import ENV_PREFIX
from rtc_server.turn import coturn
from rtc_server.turn.ice_servers import parse_uri
from rtc_server.usage.invocation import MOSHI

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "turn" / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DEPLOY = (ROOT / "docs" / "deploy.md").read_text()
PUBLIC, PRIVATE = "198.51.100.7", "10.0.0.7"


def environment_of(service: dict[str, Any]) -> dict[str, str]:
    """As Compose would set it."""
    values = {"TURN_HOST": "turn.example.org", "PUBLIC_IP": f"{PUBLIC}/{PRIVATE}"}

    def fill(text: str) -> str:
        return re.sub(r"\$\{(\w+)(?::?[-?][^}]*)?\}", lambda found: values[found[1]], text)

    return {name: fill(value) for name, value in service["environment"].items()}


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_service_runs_a_command_with_settings_that_exist(name: str) -> None:
    service = COMPOSE["services"][name]
    arguments = _parser().parse_args(service["command"])
    environment = environment_of(service)
    known = {spec for kind in (config.Settings, config.RelaySettings) for spec in kind.__dataclass_fields__}
    assert {key.removeprefix(ENV_PREFIX).lower() for key in environment} <= known
    settings = config.from_arguments(arguments, environment)
    relay = config.relay_from_arguments(arguments, environment)
    if name == "relay":
        text = coturn.render(settings, relay, "a-secret-of-the-tests")
        assert f"external-ip={PUBLIC}/{PRIVATE}" in text
    else:
        assert {parse_uri(url).port for url in settings.turn_urls} == {config.RelaySettings().turn_port}
        assert settings.auth, "it can be reached from outside"
    assert service["network_mode"] == "host"
    assert set(service["secrets"]) <= set(COMPOSE["secrets"])
    for key, value in environment.items():
        if key.endswith(("_FILE", "_AUTH")):
            assert value.removeprefix("/run/secrets/") in service["secrets"]


def test_server_and_relay_share_what_they_must() -> None:
    server, relay = (environment_of(COMPOSE["services"][name]) for name in ("server", "relay"))
    shared = ("RTC_SERVER_TURN_SECRET_FILE", "RTC_SERVER_PUBLIC_IP")
    assert [server[name] for name in shared] == [relay[name] for name in shared]
    media, relayed = server["RTC_SERVER_UDP_PORTS"], relay["RTC_SERVER_TURN_RELAY_PORTS"]
    (a, b), (c, d) = (map(int, text.split("-")) for text in (media, relayed))
    assert b < c or d < a, "the same ports twice"


def test_no_secret_is_in_what_is_checked_in() -> None:
    """Files of secrets are named, ignored by git, and not sent to the builder of the image."""
    for secret in COMPOSE["secrets"].values():
        path = (ROOT / "turn" / secret["file"]).relative_to(ROOT)
        done = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False)
        assert done.returncode == 0, path
    assert "RTC_SERVER_TURN_SECRET:" not in (ROOT / "turn" / "compose.yaml").read_text()
    rules = (ROOT / ".dockerignore").read_text().split("\n")
    assert next(rule for rule in rules if rule and not rule.startswith("#")) == "*"
    assert not any("secret" in rule for rule in rules if rule.startswith("!"))


def test_the_image_is_made_of_what_is_there() -> None:
    let_in = set(re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    for sources in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists()
            assert source in let_in
    for text in (DOCKERFILE, (ROOT / "Makefile").read_text()):
        assert re.findall(r"moshi==[\d.]+", text) == [MOSHI]


def test_the_wheel_has_all_of_the_package_and_the_page() -> None:
    """The bundled model's files among them, and those of nobody's working copy."""
    files = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    known = ["git", "ls-files", "rtc_server", "static", "turn/turnserver.conf"]
    tracked = subprocess.run(known, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    moved = {path if path.startswith("rtc_server/") else f"rtc_server/{path.removeprefix('turn/')}" for path in tracked}
    assert "rtc_server/models/pico/about.json" in moved
    assert moved <= files


def test_the_image_runs_as_nobody_and_tells_how_it_is() -> None:
    instructions = re.findall(r"^([A-Z]+) (.*)$", DOCKERFILE, re.MULTILINE)
    users = [value for name, value in instructions if name == "USER"]
    assert users[-1:] == ["rtc"]
    assert "http://127.0.0.1:8080/healthz" in DOCKERFILE
    assert config.Settings().port == 8080
    entry, command = (dict(instructions)[name] for name in ("ENTRYPOINT", "CMD"))
    assert (entry, command) == ('["rtc-server"]', '["serve"]')


def test_what_the_documentation_tells_to_type_exists() -> None:
    """Every option and every environment variable of ours in it."""
    blocks = re.findall(r"^```(?:sh|ini|dotenv)\n(.*?)^```", DEPLOY, re.DOTALL | re.MULTILINE)
    ours = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    options = _all_options(_parser())
    for line in ours:
        for name in re.findall(rf"{ENV_PREFIX}(\w+)", line):
            assert f"--{name.lower().replace('_', '-')}" in options or name == "TURN_SECRET", name
        for command in re.findall(r'rtc-server (?:serve|check|turn)\b.*|ARGS=".*"', line):
            assert set(re.findall(r"--[a-z][a-z-]+", command)) <= options, line


def _all_options(parser: argparse.ArgumentParser) -> set[str]:
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                found |= _all_options(sub)
    return found


def test_it_names_the_ports_that_compose_opens() -> None:
    for service in COMPOSE["services"].values():
        for key, value in service["environment"].items():
            if key.endswith("_PORTS"):
                assert value.replace("-", ":") in DEPLOY, f"no firewall rule for {value}"
