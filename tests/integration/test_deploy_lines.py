"""The lines of docs/deploy.md, pasted one after the other into the shell of a user who may call sudo."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import fresh_machine
from tests.support.fresh_machine import ROOT

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]  # all of a deployment, on a machine that may have other work
DEPLOY = (ROOT / "docs" / "deploy.md").read_text()
SECTIONS = dict(re.findall(r"^## (?:\d+\. )?(.*?)\n(.*?)(?=^## |\Z)", DEPLOY, re.DOTALL | re.MULTILINE))
# What stands in the place of names and figures that are the reader's own.
OWN = {"USERNAME": '"$USERNAME"', "CREDENTIAL": '"$CREDENTIAL"'}


def lines_of(section: str) -> str:
    """All that is to be typed, without what follows a "How many can talk" heading's question."""
    text = SECTIONS[section].partition("\n### ")[0]
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


def file_of(name: str) -> str:
    """The block that follows the name of a file."""
    found = re.search(rf"`{re.escape(name)}`[^\n]*\n\n```\w*\n(.*?)^```", DEPLOY, re.DOTALL | re.MULTILINE)
    assert found is not None, name
    return found[1]


def checks() -> str:
    """Those of "Check", with the credentials that the first of them prints."""
    credentials, uclient, tls = lines_of("Check").splitlines()
    for placeholder, value in OWN.items():
        assert placeholder in uclient
        uclient = re.sub(rf"\b{placeholder}\b", value, uclient)
    return f"""
shown=$({credentials})
USERNAME=$(sed -n 's/^username *//p' <<< "$shown")
CREDENTIAL=$(sed -n 's/^credential *//p' <<< "$shown")
timeout 60 {uclient.replace("-y", "-y -n 3 -m 1")}
{tls}
"""


AFTERWARDS = """
echo "--- what the server may write to:"
setpriv --reuid=rtc --regid=rtc --init-groups -- \\
  find /opt /etc /usr/local/bin /var/lib -writable -not -type l 2>/dev/null || true
echo "--- what others may read:"
setpriv --reuid=admin --regid=admin --clear-groups -- \\
  find /etc/rtc-server /etc/turnserver.conf /etc/turn-tls -type f -readable 2>/dev/null || true
echo "--- what systemd says of the unit:"
if command -v systemd-analyze >/dev/null; then
  systemd-analyze verify --man=no /etc/systemd/system/rtc-server.service 2>&1 || true
  systemd-analyze security --offline=true /etc/systemd/system/rtc-server.service 2>&1 | tail -1
fi
echo "--- the server's log:"
cat /var/log/rtc-server
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """What was printed, and every command as it ran."""
    fresh_machine.need_a_fresh_machine()
    files = {name: file_of(name) for name in ("/etc/rtc-server/server.env", "/etc/systemd/system/rtc-server.service")}
    lines = "\n".join(
        [
            *(lines_of("Install"), lines_of("Open the ports"), lines_of("Who may come in")),
            "sudo put-files",
            *(lines_of("The server as a service"), lines_of("The relay"), checks()),
        ]
    )
    done = fresh_machine.run(tmp_path_factory.mktemp("machine"), lines, files, AFTERWARDS)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout, done.stderr


def part(told: tuple[str, str], name: str) -> list[str]:
    found = re.search(rf"^--- {name}:\n(.*?)(?=^--- |\Z)", told[0], re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1].splitlines()


def test_each_line_works_when_pasted(told: tuple[str, str]) -> None:
    """A key is shown, the server is ready, the relay relays and speaks TLS."""
    out, commands = told
    assert re.search(r"^  rtc_[\w-]{43}$", out, re.MULTILINE)
    assert '{"status": "ready"}' in out
    assert "Total lost packets 0" in out
    assert re.search(r"^Protocol version: TLSv1\.[23]$", commands, re.MULTILINE)


def test_the_server_may_not_write_its_own_code(told: tuple[str, str]) -> None:
    assert {Path(line).parts[:4] for line in part(told, "what the server may write to")} == {
        ("/", "var", "lib", "rtc-server")
    }


def test_others_may_not_read_secrets(told: tuple[str, str]) -> None:
    assert part(told, "what others may read") == []


def test_systemd_understands_the_unit(told: tuple[str, str]) -> None:
    """And finds little that it could do besides what is meant."""
    lines = part(told, "what systemd says of the unit")
    if not lines:
        pytest.skip("needs systemd-analyze")
    *complaints, overall = lines
    assert not [line for line in complaints if "rtc-server.service" in line]
    found = re.search(r"exposure level.*?: ([\d.]+)", overall)
    assert found is not None, overall
    assert float(found[1]) < 4.5


def test_the_server_tells_nothing_private(told: tuple[str, str]) -> None:
    log = "\n".join(part(told, "the server's log"))
    assert "Open http://localhost:8080 in a browser" in log
    assert "rtc_" not in log.replace("rtc_server", "")
