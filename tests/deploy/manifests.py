"""The manifests as ``kubectl apply -k`` would send them, and what is in them, by kind and name."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rtc_server.config import ENV_PREFIX
from tests.support.missing import skip_but_in_ci
from tests.support.server_process import ROOT

Resource = dict[str, Any]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
WORKLOADS = ("DaemonSet", "Deployment", "StatefulSet")


def kubectl() -> str:
    """The one that is installed with the tests' tools, else the system's."""
    beside = Path(sys.executable).parent / "kubectl"
    if beside.exists():
        return str(beside)
    found = shutil.which("kubectl")
    if found is None:
        skip_but_in_ci("needs kubectl, which the tests' tools bring on Linux")
    return found


def rendered(overlay: str) -> str:
    done = subprocess.run(
        [kubectl(), "kustomize", str(KUBERNETES / "overlays" / overlay)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def resources(overlay: str) -> list[Resource]:
    """Not to be changed: the next test gets the same."""
    return list(yaml.load_all(rendered(overlay), yaml.CSafeLoader))


def of_kind(overlay: str, *kinds: str) -> list[Resource]:
    return [each for each in resources(overlay) if each["kind"] in kinds]


@dataclass(frozen=True, slots=True)
class Pod:
    """What a workload makes. All of ours have one container. ``environment``: as the container would find it, on a node
    with the address 192.0.2.7."""

    overlay: str
    name: str
    kind: str
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def container(self) -> dict[str, Any]:
        (container,) = self.spec["containers"]
        return dict(container)

    @property
    def environment(self) -> dict[str, str]:
        maps = {each["metadata"]["name"]: each["data"] for each in of_kind(self.overlay, "ConfigMap")}
        values: dict[str, str] = {}
        for source in self.container["envFrom"]:
            values |= maps[source["configMapRef"]["name"]]
        for entry in self.container.get("env", ()):
            if "valueFrom" in entry:
                values[entry["name"]] = NODE_FACTS[entry["valueFrom"]["fieldRef"]["fieldPath"]]
                continue
            value = entry["value"]
            for name, known in values.items():
                value = value.replace(f"$({name})", known)
            values[entry["name"]] = value
        return values

    @property
    def settings_environment(self) -> dict[str, str]:
        return {name: value for name, value in self.environment.items() if name.startswith(ENV_PREFIX)}


NODE_FACTS = {"status.hostIP": "192.0.2.7", "metadata.labels['apps.kubernetes.io/pod-index']": "0"}


def pods() -> list[Pod]:
    """Of every overlay, those that run our image."""
    return [pod for pod in _all() if "/rtc-server:" in pod.container["image"]]


def others() -> list[Pod]:
    """Of every overlay, those of programs that are not ours."""
    return [pod for pod in _all() if "/rtc-server:" not in pod.container["image"]]


def _all() -> list[Pod]:
    return [pod for overlay in OVERLAYS for pod in _pods(overlay)]


def _pods(overlay: str) -> Iterator[Pod]:
    for workload in of_kind(overlay, *WORKLOADS):
        template = workload["spec"]["template"]
        labels = template["metadata"]["labels"]
        yield Pod(overlay, workload["metadata"]["name"], workload["kind"], labels, template["spec"])
