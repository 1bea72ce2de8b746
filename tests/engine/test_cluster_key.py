"""The secret of a cluster: what a file may hold, and what follows from it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import zmq

from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.errors import ConfigError

SECRET = b"a secret of more than thirty-two bytes"


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_the_same_secret_makes_the_same_keys_and_another_others(tmp_path: Path) -> None:
    """A line break at the end, which editors and openssl leave there, is not part of it."""
    key = ClusterKey.of(SECRET)
    assert ClusterKey.read(written(tmp_path / "key", SECRET + b"\n")) == key
    other = ClusterKey.of(SECRET[:-1] + b"!")
    pairs = [key.engine, key.node, key.pool, other.engine, other.node, other.pool]
    assert len({pair.secret for pair in pairs}) == len({pair.public for pair in pairs}) == 6


def test_the_pairs_are_pairs() -> None:
    for pair in (ClusterKey.of(SECRET).engine, ClusterKey.of(SECRET).node):
        assert zmq.curve_public(pair.secret) == pair.public


def test_no_secret_is_shown() -> None:
    key = ClusterKey.of(SECRET)
    assert key.engine.secret.decode() not in repr(key)
    assert key.node.secret.decode() not in repr(key)


@pytest.mark.parametrize("content", [b"", b"short", b" " * 100, b"x" * 31, b"x" * 4097])
def test_what_is_no_secret_is_refused_without_being_shown(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        ClusterKey.read(written(tmp_path / "key", content))
    assert "32" in caught.value.message
    assert "openssl" in (caught.value.hint or "")
    assert "xxx" not in caught.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            ClusterKey.read(path)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_secret_that_every_user_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        ClusterKey.read(written(tmp_path / "key", SECRET, mode))
    assert bool(caplog.records) is warned
    assert SECRET.decode() not in caplog.text
