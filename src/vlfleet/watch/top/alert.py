"""What an alert says: the fleet's own words, or this language's where they are known."""

from __future__ import annotations

from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.line import Span, Tone
from vlfleet.watch.top.look import Look

_SEVERITIES = {"critical": Tone.BAD, "warning": Tone.WARN, "info": Tone.PLAIN}


def severity_of(alert: Facts, look: Look) -> Span:
    """CRITICAL is in capitals, since there may be no colour."""
    told = alert.text("severity")
    if alert.true("silenced"):
        return Span(look.say("silenced"), Tone.DIM)
    word = look.say(told)
    return Span(word.upper() if told == "critical" else word, _SEVERITIES.get(told, Tone.PLAIN))


def text_of(alert: Facts, look: Look) -> str:
    """What is wrong."""
    says, value = look.say.known(f"says {alert.text('code')}"), alert.number("value")
    if says and value is not None:
        return says.format(subject=alert.text("subject"), value=value)
    return alert.text("text") or f"{alert.text('code')} {alert.text('subject')}"


def advice_of(alert: Facts, look: Look) -> str:
    """What to do about it."""
    return look.say.known(f"advice {alert.text('code')}") or alert.text("advice")
