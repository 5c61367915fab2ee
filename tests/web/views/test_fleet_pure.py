"""What the Fleet view computes: the sentence, what is idle, what images cost, the history."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api")

from playwright.sync_api import Page

from tests.web.conftest import OpenPage
from tests.web.views import glances
from tests.web.views.conftest import Serve
from vlfleet.watch.alerts import all_rules

pytestmark = pytest.mark.browser

AT = 1_763_741_000.0


@pytest.fixture
def page(serve: Serve, open_page: OpenPage) -> Page:
    return open_page(serve(glances.alone, "").page("plan"))


def verdict(page: Page, glance: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(
        "async (glance) => (await import('/web/views/fleet/verdict.js')).verdict(glance, (key, vars) => "
        "[key, vars?.name ?? vars?.names ?? '', vars?.reason ?? vars?.detail ?? ''].join('|'))",
        glance,
    )
    return found


def test_the_sentence(page: Page) -> None:
    well = glances.busy(AT)
    assert verdict(page, well) == {"tone": "good", "text": "fleet.verdict.well||", "others": []}

    sick = glances.sick(AT)
    assert verdict(page, sick)["text"].startswith("r3 died 3 times in 10 min: CUDA out of memory")
    sick["alerts"] = []
    assert verdict(page, sick)["text"].startswith(
        "fleet.verdict.sick_because|r3|CUDA out of memory"
    )  # before its alert

    warned = glances.busy(AT)
    warned["alerts"] = [each for each in glances.sick(AT)["alerts"] if each["code"] == "gpu_hot"]
    assert verdict(page, warned) == {"tone": "warn", "text": "gpu6 is at 88 C", "others": []}
    warned["alerts"][0]["silenced"] = True
    assert verdict(page, warned)["tone"] == "good"

    out = glances.busy(AT, 2)
    out["replicas"][1]["cordoned"] = True
    assert verdict(page, out) == {"tone": "warn", "text": "fleet.verdict.cordoned|r1|", "others": []}

    assert verdict(page, glances.starting(AT))["text"] == "fleet.verdict.starting|r0|load"
    nobody = glances.busy(AT, 1)
    nobody["fleet"]["ready"] = 0
    nobody["replicas"][0] |= {"phase": "failed", "error": "no such file\nremedy: give another"}
    assert verdict(page, nobody) == {
        "tone": "bad",
        "text": "fleet.verdict.nobody_because|r0|no such file",
        "others": [],
    }
    assert verdict(page, well | {"fleet": well["fleet"] | {"status": "stopping"}})["tone"] == "warn"


def test_a_gpu_is_idle_only_while_others_work(page: Page) -> None:
    idle = "async (gpus) => (await import('/web/views/fleet/verdict.js')).idleGpus(gpus)"
    gpus = [{"index": index, "utilization": use} for index, use in enumerate((0.9, 0.01, None, 0.6))]
    assert page.evaluate(idle, gpus) == [1]
    assert page.evaluate(idle, [gpu | {"utilization": 0.0} for gpu in gpus]) == []
    assert page.evaluate(idle, []) == []


def test_costs_are_unknown_where_a_gpu_does_not_tell(page: Page) -> None:
    cost = (
        "async (glance) => { const all = await import('/web/views/fleet/figures.js');"
        "return [all.joulesPerImage(glance), all.gpuSecondsPerImage(glance)]; }"
    )
    rates = {"images_per_second": 4.0}
    gpus = [{"power_watts": 300.0}, {"power_watts": 100.0}]
    assert page.evaluate(cost, {"rates": rates, "gpus": gpus}) == [100, 0.5]
    assert page.evaluate(cost, {"rates": rates, "gpus": [{"power_watts": None}, *gpus]}) == [None, 0.75]
    assert page.evaluate(cost, {"rates": {"images_per_second": 0.0}, "gpus": gpus}) == [None, None]
    assert page.evaluate(cost, {"rates": rates | {"joules_per_image": 7.0}, "gpus": gpus}) == [7, 0.5]
    assert page.evaluate(cost, {"rates": rates, "gpus": []}) == [None, None]


def test_history_is_of_ten_minutes_with_gaps_where_nobody_looked(page: Page) -> None:
    found = page.evaluate(
        """async () => {
          const { History } = await import('/web/lib/history.js');
          const kept = new History(600);
          for (let at = 0; at < 700; at += 1) kept.push(at, { a: at, ...(at > 650 && { b: 1 }) });
          kept.push(699, { a: 0 }); // a clock that stands still
          kept.push(720, { a: 720 });
          kept.push(500, { a: 0 }); // one that jumps back
          const late = new History(600);
          late.push(1000, { a: 1 });
          late.begin([100, 500, 990, 1000, 1010], { a: [9, 8, 7, 6, 5], c: [1, 1, null, 1, 1] });
          return { times: kept.times, a: kept.column('a'), b: kept.column('b'), none: kept.column('c'),
            late: [late.times, late.column('a'), late.column('c')] };
        }"""
    )
    assert found["times"][0] == 120
    assert found["times"][-3:] == [699, 709.5, 720]
    assert found["a"][-3:] == [699, None, 720]
    assert found["b"][:2] == [None, None]
    assert len(found["a"]) == len(found["b"]) == len(found["none"]) == len(found["times"])
    assert found["late"] == [[500, 990, 1000], [8, 7, 1], [1, None, None]]


def test_a_log_without_colours_and_cursor_movements(page: Page) -> None:
    plain = "async (text) => (await import('/web/views/fleet/log.js')).plain(text)"
    assert page.evaluate(plain, "\x1b[1;32mINFO\x1b[0m a\tb\r\n\x1b]0;title\x07c\x1b[2K\x1b[1Ad\x08") == "INFO a\tb\ncd"


def test_every_alert_is_told_in_chinese(page: Page) -> None:
    chinese = "async (alert) => (await import('/web/views/fleet/alerts_zh.js')).inChinese(alert)"
    for rule in all_rules():
        alert = {"code": rule.code, "subject": "gpu6", "value": 0.5, "text": "english", "advice": "english"}
        told = page.evaluate(chinese, alert)
        for words in (told["text"], told["advice"]):
            assert re.search("[\u4e00-\u9fff]", words), rule.code
            assert not re.search("english|undefined|[{}]", words), rule.code
    unheard = {"code": "new_one", "subject": "r0", "value": 1.0, "text": "english", "advice": "english"}
    assert page.evaluate(chinese, unheard) == unheard


def test_words_in_both_languages_are_the_same_keys(page: Page) -> None:
    for part in ("fleet", "plan", "reports"):
        english, chinese = (
            page.evaluate(f"async () => (await import('/web/locale/{language}.{part}.js')).default")
            for language in ("en", "zh")
        )
        assert list(english) == list(chinese), part
        for key, words in english.items():
            assert isinstance(words, dict) == isinstance(chinese[key], dict), key
