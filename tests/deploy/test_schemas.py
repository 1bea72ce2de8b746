"""What is sent to Kubernetes is what it knows: every resource against its schema, which takes no field that it does not
have; and the files' own form."""

from __future__ import annotations

import copy
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from tests.deploy.manifests import OVERLAYS, Resource, resources
from tests.support.server_process import ROOT

SCHEMAS = Path(__file__).parent / "schemas"
OLDEST, NEWEST = "1.33", "1.37"
"""Of Kubernetes, for whose schemas the manifests are checked: 1.33 is the oldest that pods' numbers are certain in."""
CUSTOM = {path.name.removesuffix(".json.gz"): path for path in SCHEMAS.glob("*.json.gz")}


def custom_schema(kind: str) -> dict[str, Any] | None:
    """Of a resource that is not Kubernetes' own."""
    path = CUSTOM.get(f"{kind.lower()}s")
    return None if path is None else json.loads(gzip.decompress(path.read_bytes()))


def validate(resource: Resource, version: str) -> None:
    schema = custom_schema(resource["kind"])
    if schema is None:
        kubernetes_validate.validate(resource, version, strict=True)
    else:
        jsonschema.Draft7Validator(schema).validate(resource)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_resource_is_what_its_schema_says(overlay: str, version: str) -> None:
    for resource in resources(overlay):
        validate(resource, version)


@pytest.mark.parametrize("kind", ["StatefulSet", "NetworkPolicy", "PodMonitor", "PrometheusRule"])
def test_a_misspelt_field_would_be_seen(kind: str) -> None:
    resource = copy.deepcopy(next(each for each in resources("gpu") if each["kind"] == kind))
    resource["spec"]["replicsa"] = 1
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
        validate(resource, NEWEST)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_name_is_there_twice_and_all_are_in_one_namespace(overlay: str) -> None:
    found = [(each["kind"], each["metadata"]["name"]) for each in resources(overlay)]
    assert len(found) == len(set(found))
    namespaces = {each["metadata"].get("namespace") for each in resources(overlay) if each["kind"] != "Namespace"}
    assert namespaces == {"rtc-server"}


def test_the_files_are_well_formed() -> None:
    command = [sys.executable, "-m", "yamllint", "--strict", "-c", str(Path(__file__).parent / "yamllint.yaml")]
    done = subprocess.run([*command, str(ROOT / "deploy")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
