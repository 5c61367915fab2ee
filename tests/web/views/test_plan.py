"""The Plan view: what runs and why, and what would run elsewhere."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("playwright.sync_api")

from playwright.sync_api import expect

from tests.web.conftest import OpenPage, Watched
from tests.web.views import glances
from tests.web.views.answers import MODEL, planned
from tests.web.views.conftest import Serve

pytestmark = pytest.mark.browser


def test_what_runs_and_why(serve: Serve, open_page: OpenPage) -> None:
    page = open_page(serve(glances.busy, "4xH200").page("plan"))
    fleet = planned("4xH200")["plan"]["fleets"][0]
    runs = page.locator(".of-runs")
    expect(runs.locator(".headline")).to_have_text("4 replicas, each on one GPU")
    expect(runs).to_contain_text(MODEL)
    expect(runs.locator(".replica")).to_have_count(4)
    expect(runs.locator(".why")).to_contain_text(f"the best of {fleet['considered']} that were weighed")
    expect(runs.locator(".command").first).to_contain_text(f"vlfleet up {MODEL} --replicas=4")
    picture = page.locator(".of-memory img")
    assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 960
    assert str(picture.get_attribute("src")).startswith("blob:")
    page.locator(".of-memory summary").click()
    expect(page.locator(".of-memory table")).to_contain_text("language layers")
    flag = page.locator(".of-flags").get_by_role("row", name=re.compile("max-num-batched-tokens"))
    expect(flag).to_contain_text("the encoder cache")
    expect(flag).to_contain_text("requests/s")  # what it buys, in the plan's words
    weighed = page.locator(".of-weighed")
    expect(weighed.locator("tr.chosen")).to_contain_text("4 x TP1")
    expect(weighed.get_by_role("row", name="TP3")).to_contain_text("must be divisible by tensor parallel size (3)")
    measured = page.locator(".of-reality").get_by_role("row", name="Images/s").get_by_role("cell")
    expect(measured.nth(1)).to_have_text(re.compile(r"^3\d$"))
    expect(page.locator(".of-reality")).to_contain_text("less was asked")  # of the report of a day


def test_a_command_is_copied(serve: Serve, open_page: OpenPage) -> None:
    page = open_page(serve(glances.busy, "4xH200").page("plan"), permissions=["clipboard-read", "clipboard-write"])
    page.locator(".of-runs").get_by_role("button", name="Copy the command").first.click()
    expect(page.locator(".toast")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == f"vlfleet up {MODEL} --replicas=4"


def test_a_what_if_stands_beside_what_runs(serve: Serve, open_page: OpenPage) -> None:
    double = serve(glances.busy, "4xH200")
    page = open_page(double.page("plan"))
    expect(page.get_by_label("GPUs", exact=True)).to_have_value("4xH200")  # those that run
    page.get_by_label("GPUs", exact=True).fill("2xRTX4090")
    page.get_by_label("Use").select_option("ocr")
    page.get_by_label("Image size").fill("1240x1754")
    page.get_by_label("Images per request").fill("2")
    page.get_by_label("Requests in flight").fill("8")
    page.get_by_role("button", name="Plan it").click()
    result = page.locator(".result")
    expect(result.locator(".headline")).to_have_text("1 replica, spread over 2 GPUs: every layer cut in 2 (TP2)")
    expect(result.locator(".rank")).to_have_text(["GPU 0TP0", "GPU 1TP1"])
    asked = {"gpus": "2xRTX4090", "for": "ocr", "image": "1240x1754", "images": 2, "concurrency": 8}
    assert double.orders == [("/plan", asked | {"quantization": "auto", "optimise": "throughput"})]
    beside = result.locator("table.beside")
    expect(beside.get_by_role("columnheader")).to_have_text(["Figure", "what if", "runs now (predicted)"])
    cells = beside.get_by_role("row", name=re.compile("^Layout")).get_by_role("cell")
    expect(cells).to_have_text(["TP2", "4 x TP1"])
    expect(result).to_contain_text("8 requests in flight, 2 images each (1240×1754)")
    expect(result.locator(".command")).to_contain_text(f"vlfleet up {MODEL} --replicas=1 --tensor-parallel-size=2")
    expect(result.locator(".memory-picture img")).to_be_visible()


def test_what_does_not_fit_says_what_would(serve: Serve, open_page: OpenPage) -> None:
    page = open_page(serve(glances.busy, "4xH200").page("plan"))
    page.get_by_label("GPUs", exact=True).fill("1xT4")
    page.get_by_role("button", name="Plan it").click()
    refusal = page.locator(".result .refusal")
    expect(refusal).to_contain_text("It does not fit on 1 × T4.")
    for change in planned("1xT4", "--for=general", "--quantization=auto", "--optimise=throughput")["plan"]["fleets"][0][
        "changes"
    ]:
        expect(refusal).to_contain_text(change)


def test_the_planner_s_own_line_where_it_refuses(serve: Serve, open_page: OpenPage, watched: Watched) -> None:
    watched.allowed.append("400")
    page = open_page(serve(glances.busy, "4xH200").page("plan"))
    page.get_by_label("GPUs", exact=True).fill("2xVoodoo2")
    page.get_by_role("button", name="Plan it").click()
    expect(page.locator(".what-if-answer [role=alert]")).to_contain_text(re.compile("Voodoo2", re.IGNORECASE))


def test_without_a_gpu_it_says_so_and_offers_gpus(serve: Serve, open_page: OpenPage) -> None:
    page = open_page(serve(glances.alone, "").page("plan"))
    expect(page.locator(".of-runs .headline")).to_have_text("2 replicas, on this machine's CPU")
    expect(page.locator(".of-runs .why")).to_contain_text("this machine has no GPU")
    expect(page.locator(".of-memory")).to_contain_text("Memory was not planned")
    expect(page.get_by_label("GPUs", exact=True)).to_have_value("1xRTX4090")
    page.get_by_role("button", name="Plan it").click()
    expect(page.locator(".result .headline")).to_have_text("1 replica, on one GPU")
    expect(page.locator("table.beside thead th")).to_have_count(2)  # nothing was predicted for what runs


def test_a_plan_that_cannot_be_read_leaves_the_what_if(serve: Serve, open_page: OpenPage, watched: Watched) -> None:
    watched.allowed.append("404")
    double = serve(glances.busy, "4xH200")
    del double.answers["GET /plan"]
    page = open_page(double.page("plan"))
    expect(page.locator(".running .notice")).to_contain_text("What runs cannot be told")
    expect(page.get_by_role("button", name="Plan it")).to_be_visible()
