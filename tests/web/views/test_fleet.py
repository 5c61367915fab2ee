"""The Fleet view on fleets that no test machine has."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

pytest.importorskip("playwright.sync_api")

from playwright.sync_api import Page, expect

from tests.web.conftest import OpenPage, Watched
from tests.web.views import glances
from tests.web.views.admin_double import Doubles
from tests.web.views.conftest import Serve

pytestmark = pytest.mark.browser


def shown(serve: Serve, open_page: OpenPage, look: Callable[[float], glances.Glance], **options: object) -> Page:
    page = open_page(serve(look).page("fleet"), **options)
    expect(page.locator(".fleet-body")).to_be_visible()
    return page


def test_all_is_well_with_eight_gpus(serve: Serve, open_page: OpenPage) -> None:
    page = shown(serve, open_page, glances.busy)
    expect(page.locator(".verdict .text")).to_have_text("All is well: 8 of 8 replicas are ready.")
    expect(page.locator(".verdict")).to_have_attribute("data-tone", "good")
    expect(page.locator(".verdict .live")).to_have_text("live")
    expect(page.locator("table.replicas tbody tr")).to_have_count(8)
    expect(page.locator(".gpu")).to_have_count(8)
    expect(page.locator(".of-images .figure")).to_have_text(re.compile(r"^3\d$"))
    expect(page.locator(".of-cost .figure")).to_have_text(re.compile(r"^1\d\d J$"))
    row = page.get_by_role("row", name=re.compile("^r0"))
    expect(row.locator(".c-state .word")).to_have_text("ready")
    expect(row.locator(".c-kv .figure")).to_have_text(re.compile(r"^\d+%$"))
    expect(page.locator(".gpus .busy").first).to_have_text(re.compile(r"^[89]\d%$"))


def test_figures_move_and_elements_stay(serve: Serve, open_page: OpenPage) -> None:
    page = shown(serve, open_page, glances.busy)
    page.evaluate("window.kept = [...document.querySelectorAll('.replicas tr, .gpu, .tile')]")
    before = page.locator(".replicas tbody").inner_text()
    page.wait_for_function("text => document.querySelector('.replicas tbody').innerText !== text", arg=before)
    assert page.evaluate("window.kept.every((each) => each.isConnected) && window.kept.length > 20")


def test_what_is_wrong_is_named_the_worst_first(serve: Serve, open_page: OpenPage) -> None:
    page = shown(serve, open_page, glances.sick)
    sentence = "r3 died 3 times in 10 min: CUDA out of memory in the vision tower: 2.1 GiB more were needed"
    expect(page.locator(".verdict .text")).to_have_text(sentence)
    expect(page.locator(".verdict .more")).to_have_text("gpu6 is at 88 C")  # what ada took is not said again
    expect(page.locator(".verdict")).to_have_attribute("data-tone", "bad")
    expect(page.locator(".alerts > li .severity")).to_have_text(["critical", "warning", "warning"])
    expect(page.locator(".alerts > li").nth(2)).to_contain_text("acknowledged by ada")
    expect(page.locator(".gpu", has_text="GPU 5").locator(".idle-chip")).to_be_visible()
    expect(page.locator(".gpu", has_text="GPU 0").locator(".idle-chip")).to_be_hidden()
    expect(page.locator("section", has=page.locator("#h-gpus")).locator(".count")).to_contain_text("idle: 3, 5")
    expect(page.locator(".gpu", has_text="GPU 6")).to_contain_text("throttled: hw_thermal_slowdown")
    row = page.locator("tr[data-replica=r3]")
    expect(row.locator(".word")).to_have_text("dead")
    expect(row.locator(".why")).to_contain_text("CUDA out of memory")
    expect(page.locator(".silences li")).to_contain_text("media_twice of * is silent until")


def test_an_error_is_told_in_full_on_demand(serve: Serve, open_page: OpenPage) -> None:
    page = shown(serve, open_page, glances.sick)
    page.locator("tr[data-replica=r3] .name").click()
    drawer = page.get_by_role("dialog")
    expect(drawer.locator("pre.error")).to_contain_text("GPU 3 has a total capacity of 139.80 GiB")
    expect(drawer).to_contain_text("kv cache tokens")
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    expect(page.locator("tr[data-replica=r3] .name")).to_be_focused()
    page.locator(".gpu", has_text="GPU 6").get_by_role("button").click()  # from a GPU to the replica on it
    expect(drawer.locator("h2")).to_have_text("r6")


def test_alerts_are_acknowledged_and_silenced(serve: Serve, open_page: OpenPage) -> None:
    double = serve(glances.sick)
    page = open_page(double.page("fleet"))
    page.get_by_role("button", name="Acknowledge crash_loop of r3").click()
    page.get_by_role("button", name="Silence gpu_hot of gpu6 for 8 hours").click()
    page.get_by_role("button", name="End the silence of media_twice of *").click()
    expect(page.locator(".toast")).to_have_count(3)
    assert double.orders == [
        ("/alerts/acknowledge", {"code": "crash_loop", "subject": "r3", "by": "web page"}),
        ("/alerts/silence", {"code": "gpu_hot", "subject": "gpu6", "seconds": 28800}),
        ("/alerts/silence", {"code": "media_twice", "subject": "*", "seconds": 0}),
    ]


def test_a_restart_says_what_it_will_do_and_what_it_does(serve: Serve, open_page: OpenPage) -> None:
    double = serve(glances.busy)
    page = open_page(double.page("fleet"))
    page.locator("tr[data-replica=r1] .name").click()
    page.get_by_role("button", name="Restart", exact=True).click()
    question = page.get_by_role("dialog", name="Restart r1?")
    expect(question).to_contain_text("r1 takes no new requests, finishes the")
    expect(question).to_contain_text("Its last start took 44 s.")
    expect(question).to_contain_text("7 other replicas serve meanwhile.")
    page.keyboard.press("Escape")
    expect(question).to_have_count(0)
    assert double.orders == []
    page.get_by_role("button", name="Restart", exact=True).click()
    question.get_by_role("combobox").select_option("120")
    question.get_by_role("button", name="Restart", exact=True).click()
    progress = page.get_by_role("log", name="What was ordered").locator("li span")
    expect(progress).to_have_text(
        [
            "restart of r1 ordered",
            "r1 draining: 3 requests in flight",
            "r1 draining: 1 request in flight",
            "r1 stopping",
            "r1 starting load",
            "r1 ready after 44 s",
            "r1 was restarted",
        ]
    )
    assert double.orders == [("/restart", {"replica": "r1", "drain_timeout_seconds": 120, "force": False})]


def test_the_last_replica_is_not_taken_out_unawares(serve: Serve, open_page: OpenPage) -> None:
    double = serve(glances.alone, "")
    page = open_page(double.page("fleet"))
    page.locator("tr[data-replica=r0] .name").click()
    page.get_by_role("button", name="Drain", exact=True).click()
    question = page.get_by_role("dialog", name="Drain r0?")
    expect(question).to_contain_text("No other replica is ready: requests wait or are refused meanwhile.")
    question.get_by_role("button", name="Drain", exact=True).click()
    expect(page.locator(".progress li").last).to_contain_text("r0 is drained and out of rotation")
    assert double.orders == [("/drain", {"replica": "r0", "timeout_seconds": 600, "force": True})]


def test_what_is_refused_is_said(serve: Serve, open_page: OpenPage, watched: Watched) -> None:
    watched.allowed.append("409")
    double = serve(glances.busy)
    double.refuse = "the fleet is shutting down; start it again with `vlfleet up`"
    page = open_page(double.page("fleet"))
    page.locator("tr[data-replica=r0] .name").click()
    page.get_by_role("button", name="Cordon", exact=True).click()
    page.get_by_role("dialog", name="Cordon r0?").get_by_role("button", name="Cordon", exact=True).click()
    expect(page.locator(".toast.error")).to_contain_text("r0: the fleet is shutting down")
    expect(page.locator(".progress li.bad")).to_contain_text("the fleet is shutting down")


def test_a_log_is_followed_paused_and_filtered(serve: Serve, open_page: OpenPage) -> None:
    double = serve(glances.busy)
    double.log_lines.append("\x1b[1;31mERROR\x1b[0m <b>out of memory</b>\x07")
    page = open_page(double.page("fleet"))
    page.locator("tr[data-replica=r0] .name").click()
    page.get_by_role("tab", name="Log").click()
    log = page.get_by_role("log", name="Log of r0")
    expect(log.locator(".bad")).to_have_text("ERROR <b>out of memory</b>")
    expect(log.locator("div").last).to_contain_text("request 42 200 OK")
    expect(log.locator("div").last).to_contain_text("request 43 200 OK")
    page.get_by_role("button", name="Pause").click()
    count = log.locator("div").count()
    page.wait_for_timeout(1500)
    assert log.locator("div").count() == count
    page.get_by_label("Show lines with").fill("memory")
    expect(log.locator("div")).to_have_count(1)
    page.get_by_label("Show lines with").fill("")
    page.get_by_role("button", name="Follow").click()
    expect(log.locator("div")).not_to_have_count(count)


def test_one_replica_without_a_gpu(serve: Serve, open_page: OpenPage) -> None:
    page = shown(serve, open_page, glances.alone)
    expect(page.locator("table.replicas tbody tr")).to_have_count(1)
    expect(page.get_by_text("No GPU: the engines run on this machine's CPU.")).to_be_visible()
    expect(page.locator(".verdict .text")).to_have_text("All is well: 1 of 1 replicas are ready.")
    expect(page.locator(".chart")).to_have_count(4)


def test_a_start_is_no_fault(serve: Serve, open_page: OpenPage) -> None:
    page = shown(serve, open_page, glances.starting)
    expect(page.locator(".verdict .text")).to_have_text("Starting: none of 2 replicas is ready yet. r0: load")
    expect(page.locator(".verdict")).to_have_attribute("data-tone", "warn")
    expect(page.locator(".of-requests .figure")).to_have_text("–")
    expect(page.locator("main")).not_to_contain_text(re.compile("NaN|null|undefined|Infinity"))


def test_whatever_is_unknown_is_a_dash(serve: Serve, open_page: OpenPage) -> None:
    def unknown(at: float) -> glances.Glance:
        glance = glances.busy(at, 2)
        for name in ("rates", "queue", "host"):
            glance[name] = dict.fromkeys(glance[name])
        glance["gpus"] = [
            dict.fromkeys(gpu) | {"index": gpu["index"], "replicas": [], "name": "", "fault": ""}
            for gpu in glance["gpus"]
        ]
        kept = ("name", "phase", "cordoned", "detail", "error", "adjusted", "engine", "gpus", "in_flight", "restarts")
        glance["replicas"] = [dict.fromkeys(each) | {name: each[name] for name in kept} for each in glance["replicas"]]
        return glance

    page = shown(serve, open_page, unknown)
    page.locator("tr[data-replica=r0] .name").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.locator("body")).not_to_contain_text(re.compile("NaN|null|undefined|Infinity"))


def test_the_server_is_gone_and_comes_back(
    serve: Serve, open_page: OpenPage, doubles: Doubles, watched: Watched
) -> None:
    watched.allowed += ["ERR_", "Failed to load"]
    double = serve(glances.busy)
    page = open_page(double.page("fleet"))
    expect(page.locator(".verdict .live")).to_have_text("live")
    doubles.stop(double)
    expect(page.locator(".verdict .text")).to_contain_text(re.compile(r"^No contact since \d+:\d\d:\d\d"))
    expect(page.locator(".fleet-body")).to_have_class(re.compile("stale"))
    serve(glances.sick, port=int(double.url.rpartition(":")[2]))
    expect(page.locator(".verdict .text")).to_contain_text("r3 died")
    expect(page.locator(".verdict .live")).to_have_text("live")
    expect(page.locator(".fleet-body")).not_to_have_class(re.compile("stale"))


@pytest.mark.parametrize("view", ["fleet", "plan", "reports"])
def test_nothing_that_comes_from_outside_runs(serve: Serve, open_page: OpenPage, view: str) -> None:
    double = serve(glances.hostile, "4xH200")
    evil = glances.HOSTILE
    plan = double.answers["GET /plan"] | {
        "memory_svg": f"<svg xmlns='http://www.w3.org/2000/svg'><script>window.ran=1</script>{evil}</svg>"
    }
    plan["runs"] = plan["runs"] | {"model": evil, "why": evil, "up": ["vlfleet", evil], "engine_args": [f"--x={evil}"]}
    double.answers["GET /plan"] = plan
    report = double.answers["GET /report"]({})
    report |= {"model": evil, "unheard": {evil: evil}, "findings": [{"code": evil, "text": evil, "advice": evil}]}
    report["incidents"][0] |= {"text": evil, "advice": evil, "subject": evil, "code": evil}
    report["charts"] = [{"title": evil, "unit": evil, "curves": {evil: [1.0] * 240}}]
    double.answers["GET /report"] = lambda _: report
    double.log_lines = [evil] * 3
    page = open_page(double.page(view))
    expect(page.locator("main")).to_contain_text("onerror")
    if view == "fleet":
        page.locator("tr[data-replica=r0] .name").click()
        expect(page.get_by_role("dialog")).to_contain_text("onerror")
        page.get_by_role("tab", name="Log").click()
        expect(page.get_by_role("log", name="Log of r0")).to_contain_text("onerror")
    page.wait_for_timeout(300)
    assert page.evaluate("window.ran") is None
    assert page.locator("main img[src=x], main script, main svg[onload], body > img").count() == 0


def test_a_thousand_replicas_are_usable(serve: Serve, open_page: OpenPage) -> None:
    double = serve(glances.many)
    began = time.monotonic()
    page = open_page(double.page("fleet"))
    expect(page.locator("table.replicas tbody tr")).to_have_count(50)
    shown_seconds = time.monotonic() - began
    expect(page.locator(".verdict .text")).to_have_text("r50, r150, r250 +7 are unhealthy: no progress")
    expect(page.locator(".verdict .more")).to_be_hidden()
    expect(page.locator("table.replicas tbody tr .name").first).to_have_text("r50")  # those in trouble first
    page.get_by_label("only those in trouble").check()
    expect(page.locator("table.replicas tbody tr")).to_have_count(10)
    page.get_by_label("only those in trouble").uncheck()
    page.get_by_label("Find a replica").fill("r777")
    expect(page.locator("table.replicas tbody tr")).to_have_count(1)
    page.get_by_label("Find a replica").fill("")
    section = page.locator("section", has=page.locator("#h-replicas"))
    section.get_by_role("button", name="On", exact=True).click()
    expect(section.locator(".pager")).to_contain_text("51 to 100 of 1,000")
    nodes = page.evaluate("document.querySelectorAll('*').length")
    print(f"1,000 replicas and GPUs: shown after {shown_seconds:.1f} s, {nodes} elements")
    assert nodes < 4000
    assert shown_seconds < 15
