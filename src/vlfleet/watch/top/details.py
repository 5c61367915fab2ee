"""Everything that is known of the chosen row, in words: what `e` opens."""

from __future__ import annotations

from collections.abc import Iterable

from vlfleet.watch.top.alert import advice_of, severity_of, text_of
from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.figures import gib, number, pair, ratio, seconds, share
from vlfleet.watch.top.heading import clock
from vlfleet.watch.top.line import clean
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.machine import number_of, temperature, trouble
from vlfleet.watch.top.replicas import gpus_of, phase
from vlfleet.watch.top.rows import rows, still
from vlfleet.watch.top.scene import Scene
from vlfleet.watch.top.view import Pane

Told = tuple[str, str]
"""A name and what is said of it."""


def details(scene: Scene) -> tuple[str, list[Told]]:
    """A title, and what is known of the chosen row; the log has the chosen replica's."""
    pane, glance, look = scene.view.pane, scene.glance, scene.look
    pane = Pane.REPLICAS if pane is Pane.LOG else pane
    facts = still(glance, scene.view, pane)
    if facts is None:
        wanted = scene.view.chosen.get(pane)
        return (clean(wanted), [(look.say("it is gone"), "")]) if wanted else (look.say("nothing is chosen"), [])
    match pane:
        case Pane.GPUS:
            name = f"gpu{facts.text('index')}"
            return name, _known([*_alerts(glance, {name}, look), *_gpu(facts, look)])
        case Pane.REQUESTS:
            return facts.text("id"), _known(_request(facts, look))
        case Pane.ALERTS:
            return f"{facts.text('code')}  {facts.text('subject')}", _known(_alert(facts, look))
    subjects = {facts.text("name"), *(f"gpu{each}" for each in facts.texts("gpus"))}
    return facts.text("name"), _known([*_alerts(glance, subjects, look), *_replica(facts, look)])


def _known(told: Iterable[Told]) -> list[Told]:
    return [(name, text) for name, text in told if text not in ("", "-")]


def _alerts(glance: Facts, subjects: set[str], look: Look) -> list[Told]:
    """What is wrong with any of these, and what to do about it."""
    found = [each for each in rows(glance, Pane.ALERTS) if each.text("subject") in subjects]
    return [
        told
        for alert in found
        for told in ((severity_of(alert, look).text, text_of(alert, look)), (look.say("do"), advice_of(alert, look)))
    ]


def _alert(alert: Facts, look: Look) -> list[Told]:
    say = look.say
    value, threshold = alert.number("value"), alert.number("threshold")
    return [
        (say("what"), text_of(alert, look)),
        (say("severity"), severity_of(alert, look).text),
        (say("do"), advice_of(alert, look)),
        (say("value"), _exact(value)),
        (say("begins at"), _exact(threshold)),
        (say("since"), clock(alert.number("since"))),
        (say("known to"), alert.text("acknowledged_by")),
    ]


def _exact(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _replica(replica: Facts, look: Look) -> list[Told]:
    say = look.say
    times = pair(*(replica.number(f"first_token_p{each}_seconds") for each in (50, 95)))
    phases = [f"{name} {seconds(replica.part('phases').number(name))}" for name, _ in replica.pairs("phases")]
    decided = [f"{name} {value}" for name, value in replica.pairs("decisions")]
    return [
        (say("state"), phase(replica, look)),
        (say("detail"), replica.text("detail")),
        (say("last error"), replica.text("error")),
        (say("given up"), replica.text("adjusted")),
        (say("requests"), _running(replica, look)),
        (say("visual tokens in flight"), number(replica.number("visual_tokens_in_flight"))),
        (say("TTFT p50/p95"), times),
        (say("KV cache in use"), share(replica.number("kv_usage"))),
        (say("preemptions"), number(replica.number("preemptions"))),
        (say("images already held"), share(replica.number("mm_hit_share"))),
        (say("prefix already held"), share(replica.number("prefix_hit_share"))),
        (say("images resident"), number(replica.number("media_resident"))),
        (say("predicted/real time"), ratio(replica.number("predicted_times_real"))),
        (say("requests/s"), number(replica.number("requests_per_second"))),
        (say("images/s"), number(replica.number("images_per_second"))),
        (say("visual tokens/s"), number(replica.number("visual_tokens_per_second"))),
        (say("generated tokens/s"), number(replica.number("generation_tokens_per_second"))),
        (say("served"), number(replica.number("served"))),
        (say("restarts"), number(replica.number("restarts"))),
        (say("up"), seconds(replica.number("up_seconds"))),
        (say("start took"), seconds(replica.number("start_seconds"))),
        (say("of it"), ", ".join(phases)),
        (say("engine"), replica.text("engine")),
        (say("GPUs"), gpus_of(replica)),
        (say("pid, port"), f"{replica.text('pid') or '-'}, {replica.text('port') or '-'}"),
        (say("engine decided"), ", ".join(decided)),
    ]


def _running(replica: Facts, look: Look) -> str:
    return look.say(
        "{flying} in flight, {running} run, {waiting} wait",
        flying=number(replica.number("in_flight")),
        running=number(replica.number("running")),
        waiting=number(replica.number("waiting")),
    )


def _gpu(gpu: Facts, look: Look) -> list[Told]:
    say = look.say
    used, whole = gib(gpu.number("used_bytes")), gib(gpu.number("memory_bytes"))
    power, limit = number_of(gpu, "power_watts"), number_of(gpu, "power_limit_watts")
    return [
        (say("name"), gpu.text("name")),
        (say("trouble"), trouble(gpu, look).text),
        (say("replicas"), " ".join(gpu.texts("replicas"))),
        (say("utilization"), share(gpu.number("utilization"))),
        (say("memory"), say("{used} of {whole} GiB", used=used, whole=whole)),
        (say("temperature"), temperature(gpu).text),
        (say("power"), say("{power} of {limit} W", power=power, limit=limit)),
        (say("SM clock"), f"{number_of(gpu, 'sm_clock_mhz')} MHz"),
        (say("throttle reasons"), " ".join(gpu.texts("throttle")) or say("none")),
        (say("uncorrected ECC errors"), number(gpu.number("ecc_uncorrected"))),
        (say("last Xid"), number_of(gpu, "xid")),
        (say("MIG"), say("yes") if gpu.true("mig") else say("no")),
    ]


def _request(request: Facts, look: Look) -> list[Told]:
    say = look.say
    return [
        (say("replica"), request.text("replica")),
        (say("state"), say(request.text("state"))),
        (say("age"), seconds(request.number("seconds"))),
        (say("predicted last token"), seconds(request.number("predicted_seconds"))),
        (say("images"), number(request.number("images"))),
        (say("held by the replica"), number(request.number("held"))),
        (say("visual tokens"), number(request.number("visual_tokens"))),
        (say("tokens so far"), number(request.number("tokens"))),
        (say("route"), request.text("route")),
    ]
