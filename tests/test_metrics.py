"""The metrics render as Prometheus reads them, and two servers in one process do not share them."""

from __future__ import annotations

import re

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from rtc_server.metrics import CONTENT_TYPE, OF_AN_ENGINE, Metrics, merged

FRAME_S = 0.08


def all_of(metrics: Metrics) -> dict[str, Counter | Gauge | Histogram]:
    return {name: each for name, each in vars(metrics).items() if isinstance(each, Counter | Gauge | Histogram)}


def move_everything(metrics: Metrics) -> None:
    for each in all_of(metrics).values():
        child = each.labels(*("x" for _ in each._labelnames)) if each._labelnames else each
        child.observe(0.05) if isinstance(child, Histogram) else child.inc()


def samples(metrics: Metrics) -> dict[str, float]:
    """Sample name to value, labels left out."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_every_metric_renders() -> None:
    """And can be parsed again, with its help and its value."""
    metrics = Metrics()
    move_everything(metrics)
    assert len(all_of(metrics)) >= 14
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    assert len(families) >= len(all_of(metrics))
    for family in families.values():
        assert family.name.startswith("rtc_")
        assert family.documentation.endswith(".")
    assert samples(metrics)["rtc_sessions_opened_total"] == 1
    assert samples(metrics)["rtc_step_seconds_count"] == 1
    assert samples(metrics)["rtc_slots_used"] == 1


def test_two_servers_in_one_process_do_not_share_counts() -> None:
    one, other = Metrics(), Metrics()
    one.underruns.inc(3)
    one.sessions_opened.labels("echo").inc()
    assert samples(one)["rtc_playout_underruns_total"] == 3
    assert samples(other)["rtc_playout_underruns_total"] == 0
    assert b'rtc_sessions_opened_total{service="echo"} 1.0' in one.render()
    assert b"rtc_sessions_opened_total{" not in other.render()


def test_what_several_processes_tell_adds_up_and_an_engine_of_all_is_there_once() -> None:
    """A process that was started again knows less of the engine than the others: what they know stays."""
    processes = Metrics(), Metrics()
    for each, restarts in zip(processes, (3, 1), strict=True):
        for service in ("dialogue", "echo"):
            each.slots.labels(service).set(8)
            each.slots_used.labels(service).set(2)
        each.engine_restarts.labels("dialogue").inc(restarts)
        each.underruns.inc()
    texts = {index: each.render() for index, each in enumerate(processes)}
    for told in (texts, dict(reversed(texts.items()))):
        lines = merged(told, {"dialogue"}).decode().splitlines()
        for line in (
            'rtc_slots{service="dialogue"} 8.0',
            'rtc_slots{service="echo",worker="0"} 8.0',
            'rtc_slots{service="echo",worker="1"} 8.0',
            'rtc_slots_used{service="dialogue",worker="0"} 2.0',
            'rtc_slots_used{service="dialogue",worker="1"} 2.0',
            'rtc_engine_restarts_total{service="dialogue"} 3.0',
            'rtc_playout_underruns_total{worker="1"} 1.0',
        ):
            assert lines.count(line) == 1, line
        assert sum(line.startswith("rtc_slots{") for line in lines) == 3
        assert sum(line.startswith("rtc_engine_restarts_total{") for line in lines) == 1


def test_what_is_told_of_an_engine_is_told_by_service() -> None:
    labels = {family.name: family for family in Metrics().registry.collect()}
    assert set(labels) >= OF_AN_ENGINE
    declared = {each._name: each._labelnames for each in all_of(Metrics()).values()}
    assert all("service" in declared[name] for name in OF_AN_ENGINE)


def test_the_process_wide_registry_is_left_alone() -> None:
    from prometheus_client import REGISTRY

    Metrics()
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("rtc_")]


def test_labels_never_name_a_person_an_address_or_a_session() -> None:
    """Only these, whose values are few."""
    labels = {label for each in all_of(Metrics()).values() for label in each._labelnames}
    assert labels == {"state", "service", "reason", "code", "direction", "kind", "quantile", "endpoint", "outcome"}


def test_the_buckets_of_a_step_straddle_the_frame() -> None:
    """Whether a step made it within 80 ms can be read off, and how narrowly."""
    metrics = Metrics()
    metrics.step_seconds.labels("echo").observe(0.0801)
    buckets = dict(
        re.findall(r'rtc_step_seconds_bucket\{le="([^"]+)",service="echo"\} (\S+)', metrics.render().decode())
    )
    assert buckets["0.08"] == "0.0"
    assert buckets["0.085"] == "1.0"
    assert {"0.075", "+Inf"} <= set(buckets)
    assert FRAME_S == 0.08


def test_the_content_type_is_the_text_format() -> None:
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
