"""Every rule explains its log, nothing that only looks like it, and no rule finds a failure in a healthy log."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.doctor.logs import FIXTURES, HEALTHY, fired, lines, primary, rule_of
from tests.doctor.near_misses import NEAR_MISSES
from vlfleet.doctor import RULES, Role, examine

NAMES = [rule.name for rule in RULES]
ROLES = {rule.name: rule.role for rule in RULES}


def test_names_are_unique_and_stable_words() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in NAMES)


def test_every_rule_has_a_fixture_and_near_misses() -> None:
    assert {rule_of(file) for file in FIXTURES} == set(NAMES)
    assert set(NEAR_MISSES) == set(NAMES)
    assert all(NEAR_MISSES.values())


@pytest.mark.parametrize("file", FIXTURES, ids=lambda file: file.stem)
def test_the_rule_of_the_fixture_explains_it(file: Path) -> None:
    report = examine(lines(file))
    assert primary(report) == rule_of(file)
    if ROLES[rule_of(file)] is Role.NOTE:
        assert report.diagnosis is None
        return
    found = report.diagnosis
    assert found is not None
    assert found.fatal == (ROLES[found.rule] in (Role.CAUSE, Role.GENERAL, Role.SECONDARY))
    assert found.line.removesuffix("...")[:40] in lines(file)[found.line_number - 1].replace("\x1b[0m", "")


@pytest.mark.parametrize("file", FIXTURES, ids=lambda file: file.stem)
def test_cause_and_remedy_are_one_whole_line_each(file: Path) -> None:
    report = examine(lines(file))
    for found in filter(None, (report.diagnosis, *report.notes)):
        for text in (found.cause, found.remedy):
            assert text
            assert "\n" not in text
            assert "None" not in text
            assert "?" not in text
        assert "{" not in re.sub(r"\{[\"'1-9].*?\}|\{0:|\{\.\.\.\}", "", found.cause)


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, texts in NEAR_MISSES.items() for text in texts])
def test_near_misses_are_missed(rule: str, text: str) -> None:
    assert rule not in fired(text)


@pytest.mark.parametrize("file", HEALTHY, ids=lambda file: file.stem)
def test_a_healthy_log_shows_no_failure(file: Path) -> None:
    report = examine(lines(file))
    assert report.diagnosis is None
    assert report.line_count > 4


def test_there_are_enough_healthy_logs() -> None:
    assert len(HEALTHY) >= 20
    assert sum(file.name.startswith("vllm-0.26-h200") for file in HEALTHY) == 5


def test_both_lists_are_covered() -> None:
    covered = {number for rule in RULES for number in rule.covers}
    assert covered == {f"Q{number}" for number in range(1, 56)} | {f"C{number}" for number in range(1, 18)}


def test_threads_are_ids() -> None:
    for rule in RULES:
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", thread) for thread in rule.threads), rule.name


def test_a_literal_stands_in_what_its_pattern_matches() -> None:
    for rule in RULES:
        for sign in rule.signs:
            assert bool(sign.literal) == (rule.role is not Role.SYMPTOM), rule.name
            assert len(sign.literal) >= 8 or not sign.literal or sign.literal == "ERROR: ", (rule.name, sign.literal)


def test_logs_are_small_and_tell_nothing_of_the_machine() -> None:
    files = [*FIXTURES, *HEALTHY]
    assert sum(file.stat().st_size for file in files) < 1_200_000
    for file in files:
        assert not re.search(r"/work/|/tmp/doc|/home/(?!user/)|\.pyenv|root@", file.read_text()), file.name
