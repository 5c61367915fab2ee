"""What a key asks of the fleet: what is said before, and what its events say while it happens."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple

from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.figures import seconds
from vlfleet.watch.top.line import Tone, clean
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.rows import chosen, replicas_on
from vlfleet.watch.top.view import Order, Pane, View

DRAIN_SECONDS = 600.0
"""As `vlfleet restart` waits for a replica's requests."""
SILENCE_SECONDS = 3600.0


class Subject(NamedTuple):
    """What r, d and c act on."""

    name: str
    """As it is sent."""
    replicas: list[Facts]

    @property
    def shown(self) -> str:
        names = " ".join(each.text("name") for each in self.replicas)
        return names if self.name == self.replicas[0].raw("name") else f"{self.name} ({names})"


def subject(glance: Facts, view: View) -> Subject | None:
    """The chosen GPU in the pane of GPUs, else the chosen replica; None where there is no replica."""
    if view.pane is Pane.GPUS and (gpu := chosen(glance, view, Pane.GPUS)):
        names = replicas_on(glance, gpu)
        on = [each for each in glance.parts("replicas") if each.text("name") in names]
        return Subject(f"gpu{gpu.text('index')}", on) if on else None
    replica = chosen(glance, view, Pane.REPLICAS)
    return Subject(replica.raw("name"), [replica]) if replica else None


def restart(glance: Facts, view: View, look: Look) -> tuple[Order, list[str]] | None:
    """Of one replica: a GPU with several is no subject of a restart."""
    found = subject(glance, view)
    if found is None or len(found.replicas) != 1:
        return None
    replica, say, others = found.replicas[0], look.say, _others(glance, found)
    name, shown, ready = replica.raw("name"), replica.text("name"), replica.text("phase") == "ready"
    told = [say("Restart {name}?", name=shown), ""]
    if ready:
        took = seconds(replica.number("start_seconds"))
        told += [
            _finishes(replica, look, cuts=True),
            say("Then a new engine starts; the last start took {took}.", took=took),
        ]
        told.append(_meanwhile(others, look))
    else:
        told.append(say("It is {phase}: a new engine starts at once.", phase=say(replica.text("phase"))))
    body = {"replica": name, "drain_timeout_seconds": DRAIN_SECONDS, "force": ready and not others}
    return Order("restart", shown, body), told


def drain(glance: Facts, view: View, look: Look) -> tuple[Order, list[str]] | None:
    """Of a replica, or of all on a GPU."""
    found = subject(glance, view)
    if found is None:
        return None
    say, others = look.say, _others(glance, found)
    told = [say("Drain {name}?", name=found.shown), ""]
    told += [_finishes(each, look, cuts=False) for each in found.replicas]
    told += [say("It stays out, with its engine running, until you uncordon it (c)."), _meanwhile(others, look)]
    body = {"replica": found.name, "timeout_seconds": DRAIN_SECONDS, "force": not others}
    return Order("drain", found.shown, body), told


def cordon(glance: Facts, view: View, look: Look) -> tuple[Order, list[str]] | None:
    """Takes it out, or puts it back where all of it is out."""
    found = subject(glance, view)
    if found is None:
        return None
    say, shown, others = look.say, found.shown, _others(glance, found)
    if all(each.true("cordoned") for each in found.replicas):
        told = [say("Uncordon {name}?", name=shown), "", say("It gets requests again as soon as it is ready.")]
        return Order("uncordon", shown, {"replica": found.name}), told
    flying = sum(each.count("in_flight") for each in found.replicas)
    told = [say("Cordon {name}?", name=shown), "", say("It gets no new requests.")]
    if flying:
        told.append(say.counted(flying, "The request in flight goes on.", "The {n} requests in flight go on."))
    told += [say("Its engine keeps running until you uncordon it (c)."), _meanwhile(others, look)]
    return Order("cordon", shown, {"replica": found.name, "force": not others}), told


def acknowledge(glance: Facts, view: View, by: str) -> Order | None:
    alert = chosen(glance, view, Pane.ALERTS)
    if alert is None:
        return None
    body = {"code": alert.raw("code"), "subject": alert.raw("subject"), "by": by}
    return Order("acknowledge", f"{alert.text('code')} {alert.text('subject')}", body)


def silence(glance: Facts, view: View) -> Order | None:
    """Of the chosen alert, for an hour; of one that is silenced, the end of the silence that covers it."""
    alert = chosen(glance, view, Pane.ALERTS)
    if alert is None:
        return None
    code, subject = alert.raw("code"), alert.raw("subject")
    duration = 0.0 if alert.true("silenced") else SILENCE_SECONDS
    if alert.true("silenced"):
        patterns = [(each.raw("code"), each.raw("subject")) for each in glance.parts("silences")]
        covering = [each for each in patterns if fnmatchcase(code, each[0]) and fnmatchcase(subject, each[1])]
        code, subject = covering[0] if covering else (code, subject)
    body = {"code": code, "subject": subject, "seconds": duration}
    return Order("silence", clean(f"{code} {subject}"), body)


def told(order: Order, event: Facts, look: Look) -> tuple[str, Tone]:
    """An event of an order as a line; empty for one that says nothing new."""
    say, name = look.say, event.text("replica") or order.subject
    match event.text("event"):
        case "draining":
            count = event.count("in_flight")
            text = say.counted(count, "draining: {n} request in flight", "draining: {n} requests in flight")
        case "drained":
            text = say("drained: it has no request and gets none, until you uncordon it (c)")
        case "stopping":
            cut = event.count("cut")
            text = say("its old engine stops")
            if cut:
                text = say.counted(cut, "stopping: {n} request was cut", "stopping: {n} requests were cut")
        case "starting":
            text = say("starting: {detail}", detail=event.text("detail") or "...")
        case "ready":
            text = say("ready again after {took}", took=seconds(event.number("seconds")))
        case "failed":
            remedy = event.text("remedy")
            return f"{name}: {event.text('cause')}" + (f"; {remedy}" if remedy else ""), Tone.BAD
        case _:
            return "", Tone.PLAIN
    return f"{name}: {text}", Tone.GOOD if event.text("event") in ("ready", "drained") else Tone.WARN


def done(order: Order, look: Look) -> str:
    """What is said when an order without events was carried out; empty for the others."""
    say, name = look.say, order.subject
    match order.act:
        case "cordon":
            return say("{name}: cordoned; c puts it back", name=name)
        case "uncordon":
            return say("{name}: takes requests again", name=name)
        case "acknowledge":
            return say("{name}: acknowledged", name=name)
        case "silence" if order.body.get("seconds"):
            return say("{name}: silenced for an hour; s ends that", name=name)
        case "silence":
            return say("{name}: no longer silenced", name=name)
    return ""


def _others(glance: Facts, found: Subject) -> int:
    """How many others take requests."""
    names = {each.raw("name") for each in found.replicas}
    return sum(
        each.text("phase") == "ready" and not each.true("cordoned") and each.raw("name") not in names
        for each in glance.parts("replicas")
    )


def _meanwhile(others: int, look: Look) -> str:
    if not others:
        return look.say("NO OTHER REPLICA IS READY: requests wait or are refused meanwhile.")
    return look.say.counted(others, "One other replica serves meanwhile.", "{n} other replicas serve meanwhile.")


def _finishes(replica: Facts, look: Look, cuts: bool) -> str:
    say, flying, name = look.say, replica.count("in_flight"), replica.text("name")
    limit = seconds(DRAIN_SECONDS)
    if not flying:
        return say("{name} gets no new requests and has none in flight.", name=name)
    if cuts:
        return say(
            "{name} gets no new requests and finishes its {n} in flight (at most {limit}, then they are cut).",
            name=name,
            n=flying,
            limit=limit,
        )
    return say(
        "{name} gets no new requests and finishes its {n} in flight (told after {limit} if it has not).",
        name=name,
        n=flying,
        limit=limit,
    )
