"""Whether the fleet is well, in one sentence."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from vlfleet.watch.top.alert import text_of
from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.figures import number
from vlfleet.watch.top.line import Tone
from vlfleet.watch.top.look import Look

_NAMED = 2
"""Replicas that are named; more are counted."""


class Verdict(NamedTuple):
    """What to tell a person."""

    tone: Tone
    """GOOD, WARN or BAD."""
    text: str
    well: bool = True
    """False is exit code 4."""


def verdict(glance: Facts, look: Look) -> Verdict:
    """Not well: nobody is ready, or an alert is critical and not silenced. Where it serves, but somebody should look,
    the tone is WARN."""
    say, fleet = look.say, glance.part("fleet")
    replicas, alerts = glance.parts("replicas"), [each for each in glance.parts("alerts") if not each.true("silenced")]
    ready, total = ready_of(glance)
    if not ready:
        return _nobody(replicas, look)
    critical, warnings = (
        [alert for alert in alerts if alert.text("severity") == severity] for severity in ("critical", "warning")
    )
    if critical:
        text = say("Not well: {what}", what=text_of(critical[0], look))
        return Verdict(Tone.BAD, text + _more(len(critical) + len(warnings) - 1, look), well=False)
    if fleet.text("status") not in ("serving", ""):
        text = say("The fleet is {status}", status=say(fleet.text("status")))
        return Verdict(Tone.WARN, text + _phases(replicas, look))
    if ready < total:
        return Verdict(Tone.WARN, say("{ready} of {total} ready", ready=ready, total=total) + _phases(replicas, look))
    if warnings:
        text = say("Serving, but: {what}", what=text_of(warnings[0], look))
        return Verdict(Tone.WARN, text + _more(len(warnings) - 1, look))
    return Verdict(Tone.GOOD, say("; ").join([_all_ready(ready, look), *_notes(glance, replicas, look)]))


def _nobody(replicas: list[Facts], look: Look) -> Verdict:
    """A fleet that starts is not ill, but it does not serve either."""
    starts = replicas and all(each.text("phase") == "starting" for each in replicas)
    text = look.say("Starting: no replica is ready yet") if starts else look.say("Not well: no replica is ready")
    return Verdict(Tone.WARN if starts else Tone.BAD, text + _phases(replicas, look), well=False)


def _all_ready(ready: int, look: Look) -> str:
    return look.say.counted(ready, "Well: the one replica is ready", "Well: {n} of {n} replicas are ready")


def _notes(glance: Facts, replicas: list[Facts], look: Look) -> list[str]:
    """What a person may want to know of a fleet that is well."""
    waiting = glance.part("queue").number("requests")
    cordoned = [each.text("name") for each in replicas if each.true("cordoned")]
    notes = [look.say("cordoned: {names}", names=", ".join(cordoned[:4]))] if cordoned else []
    if waiting:
        notes.append(look.say.counted(waiting, "{n} request waits", "{n} requests wait"))
    if silenced := sum(each.true("silenced") for each in glance.parts("alerts")):
        notes.append(look.say.counted(silenced, "{n} alert is silenced", "{n} alerts are silenced"))
    return notes or [look.say("nothing is wrong")]


def ready_of(glance: Facts) -> tuple[int, int]:
    """How many replicas take requests, and how many are meant to: a cordoned one is not."""
    fleet, replicas = glance.part("fleet"), glance.parts("replicas")
    if not replicas:
        return fleet.count("ready"), fleet.count("size")
    serving = [each for each in replicas if not each.true("cordoned")]
    return sum(each.text("phase") == "ready" for each in serving), len(serving)


def _more(others: int, look: Look) -> str:
    return look.say.counted(others, " (and {n} more)", " (and {n} more)") if others > 0 else ""


def _phases(replicas: list[Facts], look: Look) -> str:
    """What those do that are not ready: by name and with the reason where there are one or two."""
    out = [each for each in replicas if each.text("phase") != "ready"]
    if 0 < len(out) <= _NAMED:
        return look.say("; ").join(["", *(_one(each, look) for each in out)])
    counted = Counter(each.text("phase") for each in out)
    parts = [f"{number(count)} {look.say(phase or 'unknown')}" for phase, count in counted.most_common(3)]
    return look.say("; ") + ", ".join(parts) if parts else ""


def _one(replica: Facts, look: Look) -> str:
    phase = replica.text("phase")
    why = replica.text("detail") or (replica.text("error") if phase != "starting" else "")
    return f"{replica.text('name')} {look.say(phase or 'unknown')}" + (f": {why}" if why else "")
