"""Every text of the screen is there in Chinese, with the same values in it."""

from __future__ import annotations

import ast
import string
from pathlib import Path

import pytest

from vlfleet.fleet.replica import Phase
from vlfleet.gateway import flights
from vlfleet.watch import top
from vlfleet.watch.alert import Severity
from vlfleet.watch.alerts import all_rules
from vlfleet.watch.top.alert import advice_of, text_of
from vlfleet.watch.top.boxes import HELP
from vlfleet.watch.top.chinese import CHINESE
from vlfleet.watch.top.chinese_alerts import ALERTS
from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.footer import KEYS
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.words import Words, words_of

SAME = {
    "KV", "GPU", "GiB", "MHz", "MIG", "TTFT", "Xid {xid}", "phase", "status", "policy", "state", "severity", "route"
}  # fmt: skip
"""Names that stay, and keys of facts in calls such as say(replica.text("phase"))."""
WITH_DATA = {"gpu_xid", "gpu_xid_program"}
"""What these say depends on more than a value: it stays in English."""


def said() -> set[str]:
    """The literals that the screen's code says."""
    found: set[str] = set()
    for file in Path(str(top.__file__)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                texts = node.args[:1] if name == "say" else node.args[1:3] if name == "counted" else []
                found |= {
                    each.value for each in texts if isinstance(each, ast.Constant) and isinstance(each.value, str)
                }
    return found


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_text_is_there() -> None:
    texts = said()
    assert len(texts) > 100
    words = {word for _, word, _ in KEYS} | {text for _, text in HELP}
    assert sorted((texts | words) - CHINESE.keys() - SAME) == []


def test_reasons_of_the_route_are_there() -> None:
    """Each short text that gateway/flights returns."""
    returned = [
        each.value
        for function in ast.walk(ast.parse(Path(str(flights.__file__)).read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef) and function.name in ("_route", "why", "_saved")
        for node in ast.walk(function)
        if isinstance(node, ast.Return | ast.Dict)
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    ]
    assert len(returned) >= 8
    assert sorted({*returned, *flights._BY_POLICY.values()} - CHINESE.keys()) == []


def test_states_are_there() -> None:
    acts = {"restart", "drain", "cordon", "uncordon", "acknowledge", "silence"}
    states = {*Phase, *(each.name.lower() for each in Severity), "queued", "sent", "streaming"}
    assert sorted((states | acts) - CHINESE.keys()) == []


@pytest.mark.parametrize("text", sorted(CHINESE.keys() - ALERTS.keys()))
def test_the_same_values_stand_in_it(text: str) -> None:
    assert fields(CHINESE[text]) == fields(text)


def test_every_alert_is_there() -> None:
    codes = {rule.code for rule in all_rules()} - WITH_DATA
    assert codes == {key.removeprefix("says ") for key in ALERTS if key.startswith("says ")}
    assert codes == {key.removeprefix("advice ") for key in ALERTS if key.startswith("advice ")}
    look = Look(Words(CHINESE))
    for rule in all_rules():
        alert = Facts({"code": rule.code, "subject": "gpu3", "value": 0.5, "text": "english", "advice": "do it"})
        assert ("english" in text_of(alert, look)) == (rule.code in WITH_DATA)
        assert ("do it" in advice_of(alert, look)) == (rule.code in WITH_DATA)
        assert (text_of(alert, Look()), advice_of(alert, Look())) == ("english", "do it")


def test_an_alert_without_a_value_keeps_the_fleets_words() -> None:
    alert = Facts({"code": "gpu_hot", "subject": "gpu3", "value": None, "text": "gpu3 is hot"})
    assert text_of(alert, Look(Words(CHINESE))) == "gpu3 is hot"


@pytest.mark.parametrize(
    ("environ", "chinese"),
    [
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LANG": "en_US.UTF-8"}, False),
        ({"LC_ALL": "C", "LANG": "zh_CN.UTF-8"}, False),
        ({"LC_MESSAGES": "zh_TW.UTF-8", "LANG": "en_US.UTF-8"}, True),
        ({}, False),
    ],
)
def test_language_follows_the_locale(environ: dict[str, str], chinese: bool) -> None:
    assert words_of(environ)("quit") == ("退出" if chinese else "quit")


def test_values_are_not_read_as_templates() -> None:
    assert Words()("LOG of {name}", name="{n}") == "LOG of {n}"
    assert Words()("{n} is no template") == "{n} is no template"
