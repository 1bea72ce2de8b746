"""Alerts and the dashboard ask for metrics that a server has: every name, label and value in their expressions against
a real one's ``/metrics``; and alerts fire on what they should (``alerts_test.yaml``, for Prometheus' own ``promtool``).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import promql_parser
import pytest
import pytest_asyncio
import yaml
from prometheus_client.parser import text_string_to_metric_families

from lab.waiting import until
from rtc_server import config, errors
from rtc_server.client import VoiceClient
from rtc_server.errors import ServerError
from rtc_server.sessions.state import EndReason, SessionState
from tests.conftest import need_commands, running_server
from tests.deploy.manifests import of_kind
from tests.support.script import Speaker
from tests.support.server_process import ROOT

MONITORING = ROOT / "deploy" / "monitoring"
RULES: dict[str, Any] = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"]
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SCRAPED: Final = {"job", "instance"}
"""Labels that Prometheus gives every series."""
PROMETHEUS_OWN: Final = {"up"}
NOT_SHOWN: Final = {"rtc_interruptions_total", "rtc_captions_off_total"}
"""Which are counts beside what is shown."""
VARIABLES: Final = {"$__rate_interval": "5m", "$instance": ".*", "$service": ".*"}


def error_codes(base: type[ServerError] = ServerError) -> set[str]:
    return {base.code}.union(
        *(error_codes(each) for each in base.__subclasses__() if each.__module__ == errors.__name__)
    )


VALUES: Final = {
    ("rtc_offers_refused_total", "code"): error_codes(),
    ("rtc_sessions_ended_total", "reason"): {str(reason) for reason in EndReason},
    ("rtc_sessions", "state"): {str(state) for state in SessionState},
    ("rtc_device_memory_bytes", "kind"): {"free", "total"},
    ("rtc_pages", "kind"): {"free", "total"},
}
"""What labels can be, of those that are not in every server's metrics from the start."""


def expressions() -> Iterator[tuple[str, str]]:
    for rule in ALERTS:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def parsed(text: str) -> promql_parser.Expr:
    """Raises ValueError for what Prometheus would not take either."""
    for variable, value in VARIABLES.items():
        text = text.replace(variable, value)
    return promql_parser.parse(text)


def nodes(expression: promql_parser.Expr) -> list[promql_parser.Expr]:
    found: list[promql_parser.Expr] = []
    promql_parser.walk(expression, found.append)
    return found


def selectors(expression: promql_parser.Expr) -> list[promql_parser.VectorSelector]:
    return [node for node in nodes(expression) if isinstance(node, promql_parser.VectorSelector)]


def grouping(expression: promql_parser.Expr) -> set[str]:
    """Labels that it sums by, or matches on."""
    found: set[str] = set()
    for node in nodes(expression):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            found |= set(node.modifier.labels)
        if isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None and node.modifier.matching:
            found |= set(node.modifier.matching.labels)
    return found


@dataclass(frozen=True, slots=True)
class Scraped:
    """``labels``: of each sample that there can be, by its name. ``values``: that labels had, by sample and label."""

    labels: dict[str, set[str]]
    values: dict[tuple[str, str], set[str]]


SUFFIXES: Final = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scraped() -> Scraped:
    """The metrics of a server with an engine, a call and a refused offer. Labels of what has not moved yet are those
    that it was declared with."""
    async with running_server("--model", "echo") as server, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{server.port}"
        async with VoiceClient(url, Speaker()) as client:
            await client.wait_for("connected")
            async with http.post(f"{url}/api/offer", json={"sdp": "no", "type": "offer"}) as response:
                assert response.status == 400
            heard = (
                b'rtc_loss_share_bucket{direction="out"',
                b"rtc_step_seconds_bucket{",
                b"rtc_offers_refused_total{",
            )
            await until(lambda: all(name in server.metrics.render() for name in heard))
            async with http.get(f"{url}/metrics") as response:
                text = await response.text()
        declared = {
            each._name: set(each._labelnames) for each in vars(server.metrics).values() if hasattr(each, "_name")
        }
    labels: dict[str, set[str]] = {}
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(text):
        if family.name.endswith("_created"):
            continue
        for suffix in SUFFIXES[family.type]:
            labels[family.name + suffix] = declared[family.name] | ({"le"} if suffix == "_bucket" else set())
        for sample in family.samples:
            assert set(sample.labels) == labels[sample.name]
            for label, value in sample.labels.items():
                values[sample.name, label].add(value)
    return Scraped(labels, values)


def test_all_that_is_asked_for_is_there(scraped: Scraped) -> None:
    for where, text in expressions():
        expression = parsed(text)
        asked = [selector for selector in selectors(expression) if selector.name not in PROMETHEUS_OWN]
        for selector in asked:
            assert selector.name in scraped.labels, f"{where}: there is no {selector.name}"
            known = scraped.labels[selector.name]
            for matcher in selector.matchers.matchers:
                assert matcher.name in known | SCRAPED, f"{where}: {selector.name} has no label {matcher.name}"
                if matcher.name in SCRAPED or matcher.value == ".*":
                    continue
                wanted = set(matcher.value.split("|"))
                can_be = VALUES.get((selector.name, matcher.name)) or scraped.values[selector.name, matcher.name]
                assert wanted <= can_be, f"{where}: {matcher.name} is never {wanted - can_be}"
        for label in grouping(expression) - SCRAPED:
            assert all(label in scraped.labels[selector.name] for selector in asked), f"{where}: no label {label}"


def test_labels_that_were_seen_are_what_the_tests_take_them_for(scraped: Scraped) -> None:
    for sample, can_be in VALUES.items():
        assert scraped.values[sample] <= can_be
    assert scraped.values["rtc_offers_refused_total", "code"] == {"bad_sdp"}


def test_a_metric_that_there_is_not_would_be_seen(scraped: Scraped, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (
        "rtc_session",
        'rtc_sessions{service="echo"}',
        'rtc_sessions{state="talking"}',
        "sum by (x) (rtc_sessions)",
    ):
        monkeypatch.setattr(sys.modules[__name__], "expressions", lambda wrong=wrong: iter([("here", wrong)]))
        with pytest.raises(AssertionError, match="here: "):
            test_all_that_is_asked_for_is_there(scraped)
    with pytest.raises(ValueError, match=r"\w"):
        parsed("sum by (le) rate(rtc_sessions[5m]")


def test_every_metric_is_shown(scraped: Scraped) -> None:
    """On the dashboard: what is measured and shown nowhere helps no one."""
    shown = {
        selector.name
        for panel in PANELS
        for target in panel["targets"]
        for selector in selectors(parsed(target["expr"]))
    }
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in scraped.labels}
    assert families == {re.sub(r"_(bucket|sum|count)$", "", str(name)) for name in shown} | NOT_SHOWN


def test_alerts_are_what_prometheus_takes_and_fire_when_they_should(tmp_path: Path) -> None:
    need_commands("promtool")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES))
    cases = (Path(__file__).parent / "alerts_test.yaml").read_text()
    (tmp_path / "alerts_test.yaml").write_text(cases)
    for command in (("check", "rules", "rules.yaml"), ("test", "rules", "alerts_test.yaml")):
        done = subprocess.run(["promtool", *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    for alert in ALERTS:
        assert alert["alert"] in cases, "no case"


def test_alerts_say_what_to_do() -> None:
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"warning", "critical"}
        assert set(alert["annotations"]) == {"summary", "description"}
        named = set(re.findall(r"\$labels\.(\w+)", str(alert["annotations"])))
        assert named <= grouping(parsed(alert["expr"])) | {"instance", "service"}
        options = {config.option(name) for name in config.Settings.__dataclass_fields__}
        assert set(re.findall(r"--[a-z-]+", str(alert["annotations"]))) <= options


def test_the_dashboard_is_one() -> None:
    """What Grafana needs of it: panels that do not overlap, each with a title, a unit and this dashboard's data source,
    and no variable that is not declared."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    declared = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval", "__all"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) <= declared
    for panel in PANELS:
        assert panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert label in grouping(parsed(target["expr"])) | {"instance", "quantile"}


def test_prometheus_asks_where_the_servers_answer() -> None:
    (monitor,) = of_kind("gpu", "PodMonitor")
    (media,) = [each for each in of_kind("gpu", "StatefulSet") if each["metadata"]["name"] == "media"]
    labels = media["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (asked,) = monitor["spec"]["podMetricsEndpoints"]
    (container,) = media["spec"]["template"]["spec"]["containers"]
    assert asked["port"] in {port["name"] for port in container["ports"]}
    assert asked["path"] == "/metrics"
    assert asked["authorization"]["credentials"]["name"] == "rtc-server-metrics"
    assert re.match(ALERTS[0]["expr"].partition('"')[2].partition('"')[0], "rtc-server/media"), "the operator's job"
    assert "job_name: rtc-server\n" in (ROOT / "docs" / "kubernetes.md").read_text()
