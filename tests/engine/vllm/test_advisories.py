"""The floors under which vLLM is warned of, and not exposed: they follow from a table with sources."""

from __future__ import annotations

import pytest

from vlfleet.engine.vllm import support, versions
from vlfleet.engine.vllm.advisories import ADVISORIES, REFUSED_EXPOSED, WARNED, Advisory
from vlfleet.engine.vllm.install import Install
from vlfleet.errors import ExitCode, VlfleetError


def test_the_floors() -> None:
    """research/ops.md 5: warn below 0.25.1, refuse below 0.22.0 when exposed."""
    assert max(each.fixed for each in WARNED if each.fixed) == (0, 25, 1)
    assert max(each.fixed for each in REFUSED_EXPOSED if each.fixed) == (0, 22, 0)


@pytest.mark.parametrize("each", ADVISORIES, ids=lambda each: each.id)
def test_every_entry_has_a_source_and_concerns_what_may_be_started(each: Advisory) -> None:
    assert each.source
    assert each.fixed is None or each.fixed > versions.FIRST
    assert each.covered or each in REFUSED_EXPOSED, "nothing of vlfleet stands before it"
    assert each.concerns(versions.FIRST)
    assert each.fixed is None or not each.concerns(each.fixed)


@pytest.mark.parametrize("version", ["0.20.2", "0.21.0", "0.21.9"])
def test_refused_when_exposed_and_only_then(version: str) -> None:
    assert support(Install("python", version), exposed=False)
    with pytest.raises(VlfleetError, match="CVE-2026-48746") as caught:
        support(Install("python", version), exposed=True)
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("version", ["0.22.1", "0.24.0", "0.25.0"])
def test_warned(version: str) -> None:
    (note,) = support(Install("python", version), exposed=True)
    assert "images of any size" in note
    assert "0.25.1 and newer do not" in note
    assert "\n" not in note


@pytest.mark.parametrize("version", ["0.25.1", "0.26.0", "0.32.0", "0.33.0"])
def test_nothing_to_say(version: str) -> None:
    assert support(Install("python", version), exposed=True) == ()
