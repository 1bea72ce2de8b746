"""The manifests against the code that they run: commands and settings that there are, ports that something listens on,
probes that are answered, times that fit each other, and nothing that a pod does not need."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from lab.engine_process import key_file
from lab.serving import started
from rtc_server import __version__, config
from rtc_server.access import credentials
from rtc_server.app import Server
from rtc_server.cli.engine import SHARED
from rtc_server.cli.main import _parser
from rtc_server.cluster import probe as pool_probe
from rtc_server.config import EngineSettings, PoolSettings, RelaySettings, Settings
from rtc_server.engine import probe
from rtc_server.services import plan, pool_address, pooled_services, remote_engines
from rtc_server.turn import coturn
from rtc_server.turn.ice_servers import parse_uri
from tests.deploy.manifests import KUBERNETES, OVERLAYS, Pod, of_kind, others, pods, resources
from tests.support.pools import pool
from tests.support.served import served
from tests.support.server_process import ROOT

ALL = pytest.mark.parametrize("pod", pods(), ids=lambda pod: f"{pod.overlay}-{pod.name}")
MEDIA = pytest.mark.parametrize(
    "pod", [pod for pod in pods() if pod.name == "media"], ids=lambda pod: f"{pod.overlay}-{pod.name}"
)
POOLED = [pod.overlay for pod in pods() if pod.name == "pool"]
PROBED = {"engine": probe.__name__, "pool": pool_probe.__name__}
ENGINES = [pod for pod in pods() if pod.name == "engine"]
OTHERS_VARIABLES = {"HF_HOME", "XDG_CACHE_HOME", "TRITON_CACHE_DIR", "POD_INDEX", "HOST_IP"}
CLOSING_S = 15
"""For what comes after a drain, at least."""


def settings_of(pod: Pod) -> Settings:
    return config.from_arguments(_parser().parse_args(pod.container["args"]), pod.settings_environment)


def relay_of(pod: Pod) -> RelaySettings:
    return config.relay_from_arguments(_parser().parse_args(pod.container["args"]), pod.settings_environment)


def engine_of(pod: Pod) -> EngineSettings:
    return config.engine_from_arguments(_parser().parse_args(pod.container["args"]), pod.settings_environment)


def pool_of(pod: Pod) -> PoolSettings:
    return config.pool_from_arguments(_parser().parse_args(pod.container["args"]), pod.settings_environment)


def port_range(text: str) -> tuple[int, int]:
    low, high = map(int, text.split("-"))
    return low, high


@ALL
def test_it_runs_a_command_with_settings_that_command_has(pod: Pod) -> None:
    """Every value within its bounds, by the code that reads them."""
    arguments = _parser().parse_args(pod.container["args"])
    assert set(pod.environment) <= OTHERS_VARIABLES | set(pod.settings_environment)
    of_engines = {*SHARED, *EngineSettings.__dataclass_fields__}
    its_own = {
        "engine": of_engines,
        "pool": {*PoolSettings.__dataclass_fields__, "cluster_key"},
        "turn": {*RelaySettings.__dataclass_fields__, "turn_secret_file", "public_ip"},
    }
    fields = its_own.get(arguments.command, set(Settings.__dataclass_fields__))
    assert {name.removeprefix(config.ENV_PREFIX).lower() for name in pod.settings_environment} <= fields
    settings_of(pod)
    if arguments.command == "turn":
        assert "use-auth-secret" in coturn.render(settings_of(pod), relay_of(pod), "a-secret-of-the-tests")


@ALL
def test_it_is_the_one_image(pod: Pod) -> None:
    assert pod.container["image"] == f"registry.example.org/rtc-server:{__version__}"
    assert "imagePullPolicy" not in pod.container


@MEDIA
def test_media_nodes_listen_where_they_are_looked_for(pod: Pod) -> None:
    settings = settings_of(pod)
    (port,) = pod.container["ports"]
    assert (port["containerPort"], port["name"], settings.port) == (8080, "http", Settings().port)
    assert settings.auth, "they can be reached from outside"
    assert pod.spec["hostNetwork"], "no service carries a range of UDP ports"
    assert settings.interfaces == ("192.0.2.7",), "the node's address, and no bridge's"
    assert settings.udp_ports.replace("-", ":") in (ROOT / "docs" / "deploy.md").read_text()
    services = {each["metadata"]["name"]: each["spec"] for each in of_kind(pod.overlay, "Service")}
    assert [each["targetPort"] for each in services["media"]["ports"]] == ["http"]
    assert services["media-nodes"]["ports"][0]["port"] == settings.port
    assert services["media-nodes"]["clusterIP"] == "None"
    for ingress in of_kind(pod.overlay, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            backends = [path["backend"]["service"] for path in rule["http"]["paths"]]
            assert backends == [{"name": "media", "port": {"name": services["media"]["ports"][0]["name"]}}]


@MEDIA
def test_media_nodes_that_know_each_other_pass_requests_on(pod: Pod, tmp_path: Path) -> None:
    """From a pool or a Redis, by the node's own address, at the port where they listen."""
    settings = settings_of(pod)
    assert settings.node_url == f"http://192.0.2.7:{settings.port}"
    know_each_other = bool(pool_address(settings) or settings.redis)
    assert know_each_other == (pod.overlay not in ("one-node", "gpu"))
    server = Server(
        config.from_arguments(_parser().parse_args(["serve"]), pod.settings_environment | local_values(tmp_path))
    )
    assert (server.neighbours is not None) == know_each_other


def local_values(directory: Path) -> dict[str, str]:
    """What a media node of the manifests has to be told to be started from ``directory``, where there are no secrets
    and no such addresses."""
    (directory / "auth.toml").write_text(f'[[keys]]\nname = "k"\nhash = "{credentials.hash_of("k" * 40)}"\n')
    secret = str(key_file(directory))
    return {
        "RTC_SERVER_PORT": "0",
        "RTC_SERVER_AUTH": str(directory / "auth.toml"),
        "RTC_SERVER_CLUSTER_KEY": secret,
        "RTC_SERVER_INTERFACES": "",
        "RTC_SERVER_UDP_PORTS": "",
        "RTC_SERVER_TURN_SECRET_FILE": secret,
        "RTC_SERVER_DRAIN_S": "0",
        "RTC_SERVER_REDIS_PASSWORD_FILE": secret,
    }


@MEDIA
async def test_probes_of_media_nodes_are_answered(pod: Pod, tmp_path: Path) -> None:
    """By a server with the settings of the manifest, but for what a node alone has; its engine is away at first, and
    its Redis, if it has one, for good: that is no reason to take no calls."""
    with served() as engine:
        engine_at = {"RTC_SERVER_ENGINE_AT": f"dialogue={engine.address}"}
        environment = pod.settings_environment | local_values(tmp_path) | engine_at
        environment.pop("RTC_SERVER_POOL", None)
        server = Server(config.from_arguments(_parser().parse_args(["serve"]), environment))
        async with started(server), aiohttp.ClientSession() as http:

            async def answers(name: str) -> int:
                asked = pod.container[name]["httpGet"]
                assert asked["port"] == "http"
                headers = {"Host": "192.0.2.7:8080"}
                async with http.get(f"http://127.0.0.1:{server.port}{asked['path']}", headers=headers) as response:
                    return response.status

            await server.wait_ready()
            assert [await answers(f"{name}Probe") for name in ("startup", "readiness", "liveness")] == [200, 200, 200]
            server.admission.draining = True
            assert [await answers(f"{name}Probe") for name in ("readiness", "liveness")] == [503, 200]


@pytest.mark.parametrize("pod", ENGINES, ids=lambda pod: pod.overlay)
def test_engines_listen_where_media_nodes_look_for_them(pod: Pod) -> None:
    own = engine_of(pod)
    port = int(own.engine_listen.rpartition(":")[2])
    assert [each["containerPort"] for each in pod.container["ports"]] == [port]
    assert own.engine_listen.startswith("0.0.0.0:")
    (media,) = [each for each in pods() if (each.overlay, each.name) == (pod.overlay, "media")]
    (service,) = [each for each in of_kind(pod.overlay, "Service") if each["metadata"]["name"] == "engine"]
    if pod.overlay in POOLED:
        return
    assert remote_engines(settings_of(media)) == {own.engine_service: f"{service['metadata']['name']}:{port}"}
    assert service["spec"]["publishNotReadyAddresses"], "one that drains has conversations"
    assert any(spec.service == own.engine_service for spec in plan(settings_of(pod), cuda_devices=1))


@pytest.mark.parametrize("overlay", POOLED)
def test_engines_and_media_nodes_find_their_pool(overlay: str) -> None:
    (found,) = [each for each in pods() if (each.overlay, each.name) == (overlay, "pool")]
    (service,) = [each for each in of_kind(overlay, "Service") if each["metadata"]["name"] == "pool"]
    (port,) = service["spec"]["ports"]
    listened = int(pool_of(found).pool_listen.rpartition(":")[2])
    assert ([each["containerPort"] for each in found.container["ports"]], port["targetPort"]) == ([listened], "pool")
    for name in ("media", "engine"):
        (user,) = [each for each in pods() if (each.overlay, each.name) == (overlay, name)]
        assert pool_address(settings_of(user)) == f"pool:{port['port']}"
    (media,) = [each for each in pods() if (each.overlay, each.name) == (overlay, "media")]
    assert not remote_engines(settings_of(media))
    assert pooled_services(settings_of(media)) == ("dialogue",)
    assert of_kind(overlay, "Deployment")[0]["spec"]["strategy"] == {"type": "Recreate"}, "two would each know half"


@pytest.mark.parametrize("overlay", [overlay for overlay in OVERLAYS if overlay not in ("one-node", "rooms")])
def test_all_have_one_cluster_key(overlay: str) -> None:
    """From one secret; the relay alone has nothing to do with it."""
    secrets = {
        (volume["secret"]["secretName"], settings_of(pod).cluster_key)
        for pod in pods()
        if pod.overlay == overlay and pod.name != "relay"
        for volume in pod.spec["volumes"]
        if volume["name"] == "cluster"
    }
    assert secrets == {("rtc-server-cluster", "/run/secrets/rtc-server-cluster/cluster.key")}


@pytest.mark.parametrize("pod", [pod for pod in pods() if pod.name in PROBED], ids=lambda pod: pod.overlay)
async def test_probes_of_engines_and_pools_are_answered(pod: Pod, tmp_path: Path) -> None:
    listen = {"engine": engine_of(pod).engine_listen, "pool": pool_of(pod).pool_listen}[pod.name]
    for name in ("startup", "readiness", "liveness"):
        checked = pod.container[f"{name}Probe"]
        python, dash_m, module, address, key = checked["exec"]["command"]
        assert (python, dash_m, module) == ("python", "-m", PROBED[pod.name])
        assert address == listen.replace("0.0.0.0", "127.0.0.1")
        assert key == settings_of(pod).cluster_key
        assert checked["timeoutSeconds"] >= 2 * probe.WAIT_S
    async with pool() as here:
        with served() as engine:
            asked = {"engine": engine.address, "pool": here.address}[pod.name]
            command = [sys.executable, "-m", PROBED[pod.name], asked, str(key_file(tmp_path))]
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
            assert await process.wait() == 0


@ALL
def test_a_pod_has_longer_than_its_drain(pod: Pod) -> None:
    if pod.name in ("relay", "pool"):
        assert "lifecycle" not in pod.container, "it knows no drain"
        return
    settings = settings_of(pod)
    pause = pod.container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod.spec["terminationGracePeriodSeconds"] >= pause + settings.drain_s + CLOSING_S
    assert pod.overlay == "one-node" or settings.drain_s >= 1800, "conversations end by themselves"


@pytest.mark.parametrize("pod", ENGINES, ids=lambda pod: pod.overlay)
def test_an_engine_outlives_media_nodes_that_are_told_to_end_with_it(pod: Pod) -> None:
    (media,) = [each for each in pods() if (each.overlay, each.name) == (pod.overlay, "media")]

    def ends_s(one: Pod) -> float:
        return float(one.container["lifecycle"]["preStop"]["sleep"]["seconds"] + settings_of(one).drain_s)

    assert ends_s(pod) > ends_s(media)


@ALL
def test_a_pod_may_do_nothing_that_it_does_not_need(pod: Pod) -> None:
    """All of the profile "restricted" but for the node's network; and it writes to volumes alone."""
    spec, container = pod.spec, pod.container
    assert spec["securityContext"]["runAsNonRoot"]
    uid = spec["securityContext"]["runAsUser"]
    assert f"--uid {uid}" in (ROOT / "Dockerfile").read_text()
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False, "RTC_SERVER_PORT=tcp://..."
    assert not {"hostPID", "hostIPC", "privileged"} & set(spec)
    for port in container["ports"]:
        assert port["containerPort"] >= 1024
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    assert {"cpu", "memory"} <= set(requests)
    assert "memory" in limits
    assert "cpu" not in limits, "throttled for some milliseconds, it is late"


@ALL
def test_files_that_settings_name_are_mounted_from_secrets(pod: Pod) -> None:
    volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
    claims = {"models"} if pod.name == "engine" else set()
    mounts = {mount["mountPath"]: mount for mount in pod.container["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == set(volumes) | claims
    for name, value in pod.environment.items():
        if value.startswith("/run/"):
            mount = mounts[str(Path(value).parent)]
            assert mount["readOnly"], name
            assert volumes[mount["name"]]["secret"]["defaultMode"] == 0o440, "the server's group reads, others do not"
        elif value.startswith("/"):
            assert any(value.startswith(path) for path in mounts), f"{name} is written to"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_what_is_checked_in(overlay: str) -> None:
    assert of_kind(overlay, "Secret") == []
    told = (ROOT / "docs" / "kubernetes.md").read_text()
    for pod in (each for each in pods() if each.overlay == overlay):
        for volume in pod.spec["volumes"]:
            if "secret" in volume:
                assert f"create secret generic {volume['secret']['secretName']} " in told


@ALL
def test_a_policy_lets_in_what_it_listens_for(pod: Pod) -> None:
    """And nothing else: by default nothing comes in."""
    policies = of_kind(pod.overlay, "NetworkPolicy")
    assert any(each["spec"]["podSelector"] == {} and "ingress" not in each["spec"] for each in policies)
    let_in: Counter[tuple[str, int]] = Counter()
    for policy in policies:
        selected = policy["spec"]["podSelector"].get("matchLabels")
        if selected and selected.items() <= pod.labels.items():
            for rule in policy["spec"].get("ingress", ()):
                for port in rule["ports"]:
                    let_in.update(
                        (port["protocol"], number)
                        for number in range(port["port"], port.get("endPort", port["port"]) + 1)
                    )
    wanted = {(port.get("protocol", "TCP"), port["containerPort"]) for port in pod.container["ports"]}
    ranges = {"media": settings_of(pod).udp_ports, "relay": relay_of(pod).turn_relay_ports}
    if pod.name in ranges:
        low, high = port_range(ranges[pod.name])
        wanted |= {("UDP", number) for number in range(low, high + 1)}
    assert set(let_in) == wanted


@pytest.mark.parametrize("overlay", [pod.overlay for pod in pods() if pod.name == "relay"])
def test_media_and_relay_share_what_they_must(overlay: str) -> None:
    (media,) = [pod for pod in pods() if (pod.overlay, pod.name) == (overlay, "media")]
    (relay,) = [pod for pod in pods() if (pod.overlay, pod.name) == (overlay, "relay")]
    assert settings_of(media).turn_secret_file == settings_of(relay).turn_secret_file
    assert {parse_uri(url).port for url in settings_of(media).turn_urls} == {relay_of(relay).turn_port}
    (a, b), (c, d) = port_range(settings_of(media).udp_ports), port_range(relay_of(relay).turn_relay_ports)
    assert b < c or d < a, "on one machine they would take each other's"
    for name in ("startup", "readiness", "liveness"):
        command = relay.container[f"{name}Probe"]["exec"]["command"]
        assert command == ["turnutils_stunclient", "-p", str(relay_of(relay).turn_port), "127.0.0.1"]


@pytest.mark.parametrize("pod", ENGINES, ids=lambda pod: pod.overlay)
def test_an_engine_may_reach_what_it_has_to(pod: Pod) -> None:
    """Names, the hub, and its pool: nothing else is let out."""
    out = {
        (port["protocol"], port["port"])
        for policy in of_kind(pod.overlay, "NetworkPolicy")
        if policy["spec"]["podSelector"].get("matchLabels") == {"app.kubernetes.io/name": "engine"}
        for rule in policy["spec"].get("egress", ())
        for port in rule["ports"]
    }
    wanted = {("UDP", 53), ("TCP", 53), ("TCP", 443)}
    assert out == (wanted | {("TCP", 7800)} if pod.overlay in POOLED else wanted)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_selects_pods_finds_them(overlay: str) -> None:
    labels = [pod.labels for pod in (*pods(), *others()) if pod.overlay == overlay] + [
        {**group["template"]["metadata"]["labels"], "ray.io/cluster": cluster["metadata"]["name"]}
        for cluster in of_kind(overlay, "RayCluster")
        for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"])
    ]
    for resource in resources(overlay):
        spec = resource.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        if selector:
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= found.items() for found in labels), resource["metadata"]["name"]
        if "scaleTargetRef" in spec:
            target = (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])
            assert target in {(pod.kind, pod.name) for pod in pods() if pod.overlay == overlay}


def test_what_scales_is_not_set_back_by_the_next_apply() -> None:
    for overlay in OVERLAYS:
        scaled = {each["spec"]["scaleTargetRef"]["name"] for each in of_kind(overlay, "HorizontalPodAutoscaler")}
        for workload in of_kind(overlay, "StatefulSet"):
            assert ("replicas" in workload["spec"]) == (workload["metadata"]["name"] not in scaled)


def test_every_file_is_used_by_an_overlay() -> None:
    for directory in (
        *(KUBERNETES / "components").iterdir(),
        KUBERNETES / "base",
        *(KUBERNETES / "overlays").iterdir(),
    ):
        text = (directory / "kustomization.yaml").read_text()
        files = {path.name for path in directory.iterdir()} - {"kustomization.yaml"}
        assert files == set(re.findall(r"- (?:path: )?([\w-]+\.(?:yaml|env|conf))$", text, re.MULTILINE))
    used = "".join(path.read_text() for path in KUBERNETES.rglob("kustomization.yaml"))
    for component in (KUBERNETES / "components").iterdir():
        assert re.search(rf"- \.\./(\.\./components/)?{component.name}$", used, re.MULTILINE), component.name
