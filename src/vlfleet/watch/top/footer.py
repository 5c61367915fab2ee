"""The keys, on the last line."""

from __future__ import annotations

from rich.cells import cell_len

from vlfleet.watch.top.line import Line, Span, Tone
from vlfleet.watch.top.scene import Scene
from vlfleet.watch.top.view import Box

KEYS = (
    ("q", "quit", 0),
    ("?", "help", 1),
    ("r", "restart", 2),
    ("d", "drain", 3),
    ("c", "cordon", 4),
    ("l", "log", 5),
    ("e", "why", 6),
    ("a", "ack", 7),
    ("s", "silence", 8),
    ("Tab", "pane", 9),
    ("p", "pause", 10),
    ("jk", "choose", 11),
)
"""Key, what it does, and which leave first where it is narrow: the last."""
_ORDER = ("jk", "Tab", "r", "d", "c", "l", "e", "a", "s", "p", "?", "q")


def footer(scene: Scene, width: int) -> Line:
    """The keys that can be pressed now, as many as fit."""
    say = scene.look.say
    if scene.view.box is Box.CONFIRM:
        return _line([("y", say("yes, do it")), ("n", say("no"))])
    if scene.view.box is not None:
        return _line([("jk", say("scroll")), ("Esc", say("close"))])
    room, fitting = width, set()
    for key, word, _ in KEYS:
        room -= cell_len(key) + cell_len(say(word)) + 2
        if room < -1:  # nothing follows the last one
            break
        fitting.add(key)
    words = {key: word for key, word, _ in KEYS}
    return _line([(key, say(words[key])) for key in _ORDER if key in fitting])


def _line(keys: list[tuple[str, str]]) -> Line:
    spans: list[Span] = []
    for key, word in keys:
        spans += [Span(key, Tone.HERE), Span(f" {word} ")]
    return Line(tuple(spans))
