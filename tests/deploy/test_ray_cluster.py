"""The pool on KubeRay: its Ray cluster against the code that it runs, and the release of Ray that is tested. The
operator's schema is ``test_schemas.py``'s."""

from __future__ import annotations

import contextlib
import importlib
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from packaging.requirements import Requirement

from rtc_server import config
from rtc_server.cli import pool as pool_command
from rtc_server.cli.engine import SHARED
from rtc_server.cli.main import _parser
from rtc_server.cluster import probe as pool_probe
from rtc_server.config import ENV_PREFIX, PoolSettings, Settings
from rtc_server.services import pool_address, pooled_services
from tests.deploy.manifests import Pod, of_kind, pods
from tests.support.server_process import ROOT
from tests.test_dependencies import PROJECT

OVERLAY = "gpu-ray"
CLUSTER: dict[str, Any] = of_kind(OVERLAY, "RayCluster")[0]
HEAD = CLUSTER["spec"]["headGroupSpec"]["template"]
(GROUP,) = CLUSTER["spec"]["workerGroupSpecs"]
WORKER = GROUP["template"]
(POOL,) = HEAD["spec"]["initContainers"]
(RAY_HEAD,) = HEAD["spec"]["containers"]
(RAY_WORKER,) = WORKER["spec"]["containers"]
ALL = (POOL, RAY_HEAD, RAY_WORKER)
ENVIRONMENT = {entry["name"]: entry["value"] for entry in POOL["env"] if entry["name"].startswith(ENV_PREFIX)}
COMMAND = POOL["command"][2].rpartition("exec rtc-server ")[2].split()


def settings() -> tuple[Settings, PoolSettings]:
    arguments = _parser().parse_args(COMMAND)
    return config.from_arguments(arguments, ENVIRONMENT), config.pool_from_arguments(arguments, ENVIRONMENT)


def media() -> Pod:
    return next(pod for pod in pods() if (pod.overlay, pod.name) == (OVERLAY, "media"))


def test_the_pool_has_settings_that_its_command_has() -> None:
    shared, own = settings()
    known = {*PoolSettings.__dataclass_fields__, *SHARED}
    assert {name.removeprefix(ENV_PREFIX).lower() for name in ENVIRONMENT} <= known
    assert own.ray_address == "127.0.0.1:6379", "the head is in the same pod"
    assert shared.device == "cuda"
    assert COMMAND == ["pool"]


def test_media_nodes_and_engines_find_the_pool() -> None:
    shared, own = settings()
    (service,) = [each for each in of_kind(OVERLAY, "Service") if each["metadata"]["name"] == "pool"]
    (port,) = service["spec"]["ports"]
    assert service["spec"]["selector"].items() <= HEAD["metadata"]["labels"].items()
    assert [each["containerPort"] for each in POOL["ports"]] == [int(own.pool_listen.rpartition(":")[2])]
    assert port["targetPort"] == POOL["ports"][0]["name"]
    there = config.from_arguments(_parser().parse_args(["serve"]), media().settings_environment)
    assert pool_address(there) == pool_address(shared) == f"pool:{port['port']}"
    assert set(pooled_services(there)) == set(own.services)


def test_an_engine_gets_the_command_that_the_worker_can_run() -> None:
    """With the key at the path where it is, and a GPU, of which a worker has one."""
    shared, own = settings()
    placement = pool_command.placement(shared, own, "dialogue", "pool:7800")
    module, *arguments = placement.host.command
    assert module == "rtc_server.cli.hosted"
    parsed = _parser().parse_args(arguments)
    engine = config.from_arguments(parsed, {})
    assert (engine.model, engine.slots, engine.context) == (shared.model, shared.slots, shared.context)
    assert placement.gpus == float(RAY_WORKER["resources"]["limits"]["nvidia.com/gpu"]) == 1
    assert placement.cpus <= float(GROUP["rayStartParams"]["num-cpus"])
    for container, template in ((POOL, HEAD), (RAY_WORKER, WORKER)):
        (mount,) = [each for each in container["volumeMounts"] if each["name"] == "cluster"]
        assert placement.host.key_file == f"{mount['mountPath']}/cluster.key"
        assert [each["secret"]["secretName"] for each in template["spec"]["volumes"] if "secret" in each] == [
            "rtc-server-cluster"
        ]
    assert int(ENVIRONMENT["RTC_SERVER_MAX"]) <= GROUP["maxReplicas"]
    assert GROUP["minReplicas"] == 0


def test_ray_is_the_release_that_is_tested() -> None:
    ray = importlib.import_module("ray")
    version = CLUSTER["spec"]["rayVersion"]
    assert version == ray.__version__
    (wanted,) = [Requirement(text) for text in PROJECT["optional-dependencies"]["cluster"] if text.startswith("ray")]
    assert wanted.specifier.contains(version)
    for container in ALL:
        assert container["image"].endswith("-cluster")
    assert 'ARG EXTRAS=""' in (ROOT / "Dockerfile").read_text()
    assert "--build-arg EXTRAS=[cluster]" in (ROOT / "docs" / "kubernetes.md").read_text()


def test_ray_asks_for_its_token_and_the_pool_has_it() -> None:
    """The operator makes it, in a secret of the cluster's name, and gives it to the containers that it knows."""
    assert CLUSTER["spec"]["authOptions"] == {"mode": "token"}
    environment = {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in POOL["env"]}
    assert environment["RAY_AUTH_MODE"] == "token"
    secret = {"name": CLUSTER["metadata"]["name"], "key": "auth_token"}
    assert environment["RAY_AUTH_TOKEN"] == {"secretKeyRef": secret}


def test_engines_are_on_workers_alone_and_the_head_restarts_the_pool() -> None:
    assert CLUSTER["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert POOL["restartPolicy"] == "Always", "with the autoscaler, nothing else in the pod is started again"
    shared = {mount["mountPath"]: mount["name"] for mount in RAY_HEAD["volumeMounts"]}
    assert shared.items() <= {mount["mountPath"]: mount["name"] for mount in POOL["volumeMounts"]}.items()
    assert {"/tmp/ray": "ray-logs", "/dev/shm": "shared-mem"}.items() <= shared.items(), "the operator's own names"
    assert HEAD["spec"]["shareProcessNamespace"]


def test_probes_are_of_programs_that_there_are() -> None:
    for name in ("readinessProbe", "livenessProbe"):
        command = POOL[name]["exec"]["command"]
        assert command[:3] == ["python", "-m", pool_probe.__name__]
        assert command[4] == settings()[0].cluster_key
    for container in (RAY_HEAD, RAY_WORKER):
        assert {"readinessProbe", "livenessProbe"} <= set(container), "the operator's own ask what is not installed"
    with raylet():
        assert subprocess.run(RAY_WORKER["livenessProbe"]["exec"]["command"], check=False).returncode == 0


@contextlib.contextmanager
def raylet() -> Iterator[None]:
    """A process of that name."""
    code = "import ctypes, sys; ctypes.CDLL(None).prctl(15, b'raylet'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(["python3", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate()


@pytest.mark.parametrize("template", [HEAD, WORKER], ids=["head", "worker"])
def test_pods_may_do_nothing_that_they_do_not_need(template: dict[str, Any]) -> None:
    spec = template["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is (template is HEAD), "the autoscaler asks Kubernetes"
    for container in [*spec.get("initContainers", ()), *spec["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert "cpu" not in container["resources"]["limits"]
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_policies_let_in_what_is_listened_for() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(OVERLAY, "NetworkPolicy")}
    among = policies["ray"]
    assert among["podSelector"]["matchLabels"] == {"ray.io/cluster": CLUSTER["metadata"]["name"]}
    assert among["ingress"] == [{"from": [{"podSelector": among["podSelector"]}]}]
    (at_pool,) = policies["pool"]["ingress"]
    assert [port["port"] for port in at_pool["ports"]] == [int(settings()[1].pool_listen.rpartition(":")[2])]
    (at_engines,) = policies["engine"]["ingress"]
    (ports,) = at_engines["ports"]
    assert (ports["port"], ports["endPort"]) == (32768, 60999)
    for name, template in (("pool", HEAD), ("engine", WORKER)):
        assert policies[name]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
