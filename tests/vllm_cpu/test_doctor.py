"""The doctor explains what the installed vLLM really writes when it cannot start."""

from __future__ import annotations

import pytest

from tests.doctor.record import VLLM, log_of
from vlfleet.doctor import Diagnosis, diagnose

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def explained(rule: str) -> Diagnosis:
    assert VLLM.is_file(), "run `make test-engine`, which installs it"
    log = log_of(rule)
    found = diagnose(log.splitlines())
    assert found is not None, log[-3000:]
    assert (found.rule, found.fatal) == (rule, True)
    return found


def test_heads_that_no_eight_ranks_can_share() -> None:
    found = explained("attention-heads-indivisible")
    assert "--tensor-parallel-size 4, with 2 replicas on the 8 GPUs" in found.remedy
    assert found.numbers == {"heads": 28, "tp": 8}


def test_a_kv_cache_that_is_too_small_for_one_request() -> None:
    """8 MiB hold 896 tokens of the bundled model in float32."""
    found = explained("kv-cache-too-small-for-length")
    assert "--max-model-len 896" in found.remedy


def test_an_adapter_that_was_not_merged() -> None:
    assert "merge" in explained("adapter-not-merged").remedy


def test_a_port_that_is_taken() -> None:
    assert explained("port-in-use").kind.value == "port"
