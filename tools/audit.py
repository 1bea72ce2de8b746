"""Asks for published vulnerabilities of all that is installed beside the server: ``make audit``.

By pip-audit and the advisories of osv.dev, so it needs the network. It says so where there is none, and does not pass.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

SOUND, VULNERABLE, NOT_AUDITED = 0, 1, 2


def installed() -> list[str]:
    """``NAME==VERSION`` of every distribution but our own, without local labels: ``+cpu`` has no advisories."""
    found = {
        canonicalize_name(dist.name): dist.version.partition("+")[0]
        for dist in importlib.metadata.distributions()
        if dist.name
    }
    found.pop(canonicalize_name("rtc-server"), None)
    return sorted(f"{name}=={version}" for name, version in found.items())


def ask(requirements: list[str], url: str | None) -> list[dict[str, Any]] | None:
    """What pip-audit finds of each; None if there was no answer."""
    with tempfile.TemporaryDirectory() as directory:
        listed = Path(directory) / "requirements.txt"
        listed.write_text("\n".join(requirements))
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(listed), "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--progress-spinner", "off", "--vulnerability-service", "osv"]
        done = subprocess.run(
            [*command, *(["--osv-url", url] if url else [])], capture_output=True, text=True, check=False
        )
    try:
        dependencies: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return None
    return dependencies


def report(dependencies: list[dict[str, Any]] | None) -> int:
    """Print what there is to say. The exit status."""
    audited = [each for each in dependencies or () if "vulns" in each]
    if not audited:
        print("error: The advisories of osv.dev cannot be had: nothing was audited.", file=sys.stderr)
        print("hint: make audit needs the network, to https://api.osv.dev.", file=sys.stderr)
        return NOT_AUDITED
    vulnerable = [(each, vuln) for each in audited for vuln in each["vulns"]]
    for each, vuln in vulnerable:
        names = ", ".join([vuln["id"], *vuln.get("aliases", ())])
        print(
            f"{each['name']} {each['version']}: {names}; fixed in {', '.join(vuln['fix_versions']) or 'no version yet'}"
        )
    for each in dependencies or ():
        if "vulns" not in each:
            print(f"{each['name']}: not audited: {each.get('skip_reason', 'no reason given')}")
    print(f"{len(audited)} packages, {len(vulnerable)} published vulnerabilities")
    return VULNERABLE if vulnerable else SOUND


def main() -> int:
    parser = argparse.ArgumentParser(prog="make audit", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--osv-url", help="another address that answers as https://api.osv.dev/v1/query does")
    return report(ask(installed(), parser.parse_args().osv_url))


if __name__ == "__main__":
    sys.exit(main())
