"""The pane of the chosen replica's log."""

from __future__ import annotations

from vlfleet.watch.top.line import Line, Span, Tone, clean, cut, line
from vlfleet.watch.top.scene import Scene
from vlfleet.watch.top.view import Pane

_BAD = ("ERROR", "Traceback", "CRITICAL", "OutOfMemory", "Error:")


def log(scene: Scene, width: int, height: int) -> list[Line]:
    """The last lines, or those before them that the person went back to. Long lines are cut, not wrapped."""
    say, here = scene.look.say, scene.here(Pane.LOG)
    lines, rows = scene.log, max(0, height - 1)
    end = max(min(rows, len(lines)), len(lines) - scene.view.back)
    name = clean(scene.log_of)
    title = say("LOG of {name}", name=name) if name else say("LOG")
    if end < len(lines):
        title += say(", {n} lines further up", n=len(lines) - end)
    sign = scene.look.signs.chosen if here else " "
    head = Line((Span(f"{sign}{title} " + scene.look.signs.rule * width, Tone.HERE if here else Tone.HEAD),))
    shown = [clean(each) for each in lines[max(0, end - rows) : end]] or [say("nothing yet")]
    told = [line(cut(each, width), Tone.BAD if any(bad in each for bad in _BAD) else Tone.PLAIN) for each in shown]
    return [head, *told][:height]
