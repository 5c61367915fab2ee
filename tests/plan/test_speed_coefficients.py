"""Coefficients: where they come from, their file, and the fit that makes them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest

from vlfleet.errors import VlfleetError
from vlfleet.hardware.catalogue import find_model
from vlfleet.plan import speed_coefficients
from vlfleet.plan.least_squares import fit
from vlfleet.plan.speed_coefficients import FITTED, Coefficients, coefficients_of, path_of, read, write

H200 = find_model("H200")


def test_every_coefficient_says_where_it_is_from() -> None:
    """Its first words: Prior, Host, Fitted, or that nobody measured it."""
    source = Path(speed_coefficients.__file__).read_text()
    for field in fields(Coefficients):
        text = re.search(rf'    {field.name}: float = \S+\n    """(.*?)"""', source, re.DOTALL)
        assert text is not None, field.name
        said = text[1].split(";")[0].split(",")[0].split(".")[0]
        assert said in ("Prior", "Host", "Fitted") or "Not measured" in text[1], field.name
        assert (said == "Fitted") == (field.name in FITTED), field.name


def test_a_calibration_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path))
    assert read(H200, "NVIDIA H200", "0.26.0") == coefficients_of(H200)
    mine = replace(coefficients_of(H200), step_seconds=1e-3)
    file = write(mine, "NVIDIA H200", "0.26.0", ["one", "two"])
    assert file == path_of("NVIDIA H200", "0.26.0") == tmp_path / "calibration" / "h200-0.26.0-speed.json"
    assert read(H200, "NVIDIA H200", "0.26.0") == read(H200, "H200", "0.26.0") == mine
    assert json.loads(file.read_text())["rows"] == ["one", "two"]
    assert read(H200, "NVIDIA H200", "0.32.0") == coefficients_of(H200)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"coefficients": {"step_seconds": 0}}',
        '{"coefficients": 3}',
        '{"coefficients": {"step_seconds": "fast"}}',
    ],
)
def test_a_damaged_calibration_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path))
    file = path_of("NVIDIA H200", "0.26.0")
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(VlfleetError, match="no calibration") as failure:
        read(H200, "NVIDIA H200", "0.26.0")
    assert str(file) in failure.value.remedy


def test_a_fit_finds_what_made_the_measurements() -> None:
    """Three unknowns behind six figures, from a start that is off by factors of 2 to 5."""
    names = ("step_seconds", "sequence_seconds", "gemm_efficiency")
    truth = replace(Coefficients(), step_seconds=2e-3, sequence_seconds=2e-5, gemm_efficiency=0.5)

    def figures(c: Coefficients) -> list[float]:
        return [
            c.step_seconds + n * c.sequence_seconds + n / 1e4 / c.gemm_efficiency**2 for n in (1, 4, 16, 64, 256)
        ] + [1 / c.gemm_efficiency]

    def residuals(c: Coefficients) -> Sequence[float]:
        return [math.log(a / b) for a, b in zip(figures(c), figures(truth), strict=True)]

    start = replace(Coefficients(), step_seconds=1e-2, sequence_seconds=5e-6, gemm_efficiency=0.9)
    found = fit(start, names, residuals)
    assert max(abs(error) for error in residuals(found)) < 1e-3
    assert found.gemm_efficiency == pytest.approx(0.5, rel=0.01)
    assert replace(found, **dict.fromkeys(names, 1.0)) == replace(start, **dict.fromkeys(names, 1.0))


def test_a_fit_does_not_leave_a_good_place() -> None:
    def residuals(c: Coefficients) -> Sequence[float]:
        return [math.log(c.step_seconds / Coefficients().step_seconds)]

    assert fit(Coefficients(), ["step_seconds"], residuals).step_seconds == pytest.approx(Coefficients().step_seconds)
