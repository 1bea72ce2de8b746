"""A machine to try the lines of docs/deploy.md on: this one, with an /etc, /opt, /var and network of its own.

Everything happens in namespaces of mounts, processes and network, and is gone with them. A user without privileges
types the lines; ``sudo`` is a copy of ``setpriv`` that may become root. Programs that would fetch something from the
internet or talk to the init system are stand-ins: ``apt-get``, ``git clone``, ``make setup``, ``certbot``, ``ufw``,
``systemctl``. The last one starts what it is told to as the unit says: the user, the environment, nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import need_commands

ROOT: Final = Path(__file__).parent.parent.parent
PRIVATE: Final = "10.0.0.7"
_NAMESPACES: Final = ("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--propagation", "private")

_STAND_INS: Final = {
    "sudo": 'exec "$(dirname "$0")/become-root" --reuid=0 --regid=0 --clear-groups -- "$@"',
    "apt-get": "exit 0",
    "ufw": "exit 0",
    # git clone REPOSITORY DIRECTORY: the working copy, so that what is not committed is tried as well.
    "git": f'mkdir -p "$3" && cd {ROOT} && cp -r rtc_server static turn pyproject.toml Makefile "$3"',
    # make -C DIRECTORY setup
    "make": """mkdir -p "$2/.venv/bin"
cat > "$2/.venv/bin/rtc-server" <<END
#!/bin/sh
export LD_LIBRARY_PATH=/var/python/lib PYTHONPATH=$2:/var/packages
exec /var/python/bin/python3 -m rtc_server "\\$@"
END
chmod 755 "$2/.venv/bin/rtc-server\"""",
    "certbot": """live=/etc/letsencrypt/live/turn.example.org
mkdir -p "$live" /etc/letsencrypt/renewal-hooks/deploy
chmod 700 /etc/letsencrypt/live
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=turn.example.org -days 1 \\
  -addext subjectAltName=DNS:turn.example.org -keyout "$live/privkey.pem" -out "$live/fullchain.pem" 2>/dev/null""",
    "systemctl": """case "$*" in
*rtc-server*)
  unit=/etc/systemd/system/rtc-server.service
  user=$(sed -n 's/^User=//p' "$unit")
  file=$(sed -n 's/^EnvironmentFile=//p' "$unit")
  start=$(sed -n 's/^ExecStart=//p' "$unit")
  directory=/var/lib/$(sed -n 's/^StateDirectory=//p' "$unit")
  set -- HOME="$directory" PATH=/usr/local/bin:/usr/bin:/bin
  while read -r line; do set -- "$@" "$line"; done < "$file"
  cd / && setsid setpriv --reuid="$user" --regid="$user" --init-groups --no-new-privs --bounding-set=-all -- \\
    env -i "$@" RTC_SERVER_MODEL=echo $start >/var/log/rtc-server 2>&1 </dev/null & ;;
*coturn*)
  setsid setpriv --reuid=turnserver --regid=turnserver --init-groups -- \\
    turnserver -c /etc/turnserver.conf --pidfile= >/var/log/coturn 2>&1 </dev/null &
  for _ in $(seq 100); do
    grep -q "TLS/TCP listener opened on : PRIVATE:5349" /var/log/coturn && break
    sleep 0.1
  done ;;
esac""",
}

_PREPARE: Final = """set -euo pipefail
mount -t tmpfs tmpfs "$WORK/etc"
cp -a /etc/. "$WORK/etc"
mount --bind "$WORK/etc" /etc
mount -t tmpfs tmpfs "$WORK/bin"
cp -a /usr/local/bin/. "$WORK/bin" && mount --bind "$WORK/bin" /usr/local/bin
mount -t tmpfs -o mode=755 tmpfs /opt
mkdir "$WORK/python" "$WORK/packages"
mount --bind "$PYTHON" "$WORK/python" && mount --bind "$PACKAGES" "$WORK/packages"
mount -t tmpfs -o mode=755 tmpfs /var
mkdir -p /var/lib /var/log /var/mail /var/www /var/python /var/packages /var/stand-ins
mount --bind "$WORK/python" /var/python && mount --bind "$WORK/packages" /var/packages
cp -a "$WORK/stand-ins/." /var/stand-ins
cp "$(command -v setpriv)" /var/stand-ins/become-root && chmod 4755 /var/stand-ins/become-root
ip link set lo up
ip link add cloud type veth peer name cable
ip address add PRIVATE/24 dev cloud
ip link set cloud up && ip link set cable up
ip route add default dev cloud
echo 'PRIVATE turn.example.org voice.example.org' >> /etc/hosts
rm -rf /etc/rtc-server /etc/turn-tls /etc/turnserver.conf /etc/letsencrypt
useradd --no-create-home admin
"""


def need_a_fresh_machine() -> None:
    """Skip the test, with the reason, where there can be none."""
    need_commands("unshare", "setpriv", "useradd", "ip", "openssl", "curl", "turnserver")
    if os.geteuid() != 0:
        pytest.skip("needs root, for a machine within this one")
    made = subprocess.run([*_NAMESPACES, "mount", "-t", "tmpfs", "tmpfs", "/opt"], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("needs namespaces of mounts, processes and network, which cannot be made here")


def run(directory: Path, lines: str, files: dict[str, str], afterwards: str) -> subprocess.CompletedProcess[str]:
    """``lines`` as a user without privileges types them, the first that fails being the last, with ``files`` as the
    administrator has written them by the time that a directory for them exists; then ``afterwards``, as root."""
    for name in ("etc", "bin", "stand-ins", "files"):
        (directory / name).mkdir()
    for name, text in _STAND_INS.items():
        path = directory / "stand-ins" / name
        path.write_text(f"#!/bin/bash\n{text.replace('PRIVATE', PRIVATE)}\n")
        path.chmod(0o755)
    put = "#!/bin/sh\n"
    for number, (path_there, text) in enumerate(files.items()):
        (directory / "files" / str(number)).write_text(text)
        put += (
            f"mkdir -p {Path(path_there).parent}; cp {directory}/files/{number} {path_there}; chmod 644 {path_there}\n"
        )
    (directory / "lines.sh").write_text(f"set -euo pipefail\ncd /tmp\n{lines}")
    (directory / "stand-ins" / "put-files").write_text(put)
    (directory / "stand-ins" / "put-files").chmod(0o755)
    script = f"""{_PREPARE.replace("PRIVATE", PRIVATE)}
cp {directory}/lines.sh /var/lines.sh
export PATH=/var/stand-ins:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
trap 'head -n 40 /var/log/rtc-server /var/log/coturn' ERR
setpriv --reuid=admin --regid=admin --init-groups -- env -i PATH="$PATH" HOME=/tmp bash -x /var/lines.sh
{afterwards}
"""
    return subprocess.run(
        [*_NAMESPACES, "bash", "-c", script],
        env={
            "PATH": os.environ["PATH"],
            "WORK": str(directory),
            "PYTHON": sys.base_prefix,
            "PACKAGES": sysconfig.get_path("purelib"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
