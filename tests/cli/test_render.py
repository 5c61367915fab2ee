"""`vlfleet render` of what watches a fleet; that of plans is in test_plan.py."""

from __future__ import annotations

import json

import pytest

from tests.cli.test_plan import vlfleet


def test_grafana() -> None:
    done = vlfleet("render", "grafana")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["title"] == "vlfleet"


def test_prometheus() -> None:
    assert 'targets: ["127.0.0.1:8000"]' in vlfleet("render", "prometheus").stdout
    for given in ("gpu-box:9000", "http://gpu-box:9000", "http://gpu-box:9000/v1"):
        done = vlfleet("render", "prometheus", given)
        assert (done.returncode, done.stderr) == (0, "")
        assert 'targets: ["gpu-box:9000"]' in done.stdout


def test_rules_of_what_was_promised() -> None:
    assert 'le=\\"5.0\\"' in vlfleet("render", "prometheus-rules").stdout
    told = vlfleet("render", "prometheus-rules", "--slo-ttft", "2", "--slo-share", "0.95").stdout
    assert 'le=\\"2.5\\"' in told
    assert "begin after 2 s than 95.0% allow" in told


@pytest.mark.parametrize("words", [("grafana", "plan.json"), ("prometheus-rules", "x:1"), ("prometheus", "plan.json")])
def test_wrong_words(words: tuple[str, str]) -> None:
    done = vlfleet("render", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""
