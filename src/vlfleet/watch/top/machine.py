"""The pane of the GPUs; of the host where there is none."""

from __future__ import annotations

from functools import lru_cache

from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.figures import UNKNOWN, gib, number, of, share, size
from vlfleet.watch.top.line import Line, Span, Tone, fit, flow, pad
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.rows import chosen_at, rows
from vlfleet.watch.top.scene import Scene
from vlfleet.watch.top.table import Column, Table, draw, numbered, window
from vlfleet.watch.top.view import Pane

COMPACT = 38
"""Cells of a GPU when several stand on a line."""
_HARMLESS = frozenset({"sw_power_cap", "gpu_idle"})
"""A GPU at full load runs at its power limit; one without load is clocked down."""


def machine(scene: Scene, width: int, height: int) -> list[Line]:
    """A line for each GPU where there is room, else several on a line; the host where there is no GPU."""
    found = rows(scene.glance, Pane.GPUS)
    if not found:
        return _host_alone(scene, width)[:height]
    at, here = chosen_at(scene.view, Pane.GPUS, found), scene.here(Pane.GPUS)
    if len(found) + 1 > height and width // COMPACT > 1:
        return _grid(scene, found, at, width, height)
    return list(draw(table(scene.look, width), found, at, here, height))


def lines(scene: Scene, width: int) -> tuple[int, int]:
    """How many are needed, so that up to eight GPUs are seen, and how many leave nothing out."""
    count = len(rows(scene.glance, Pane.GPUS))
    across = max(1, width // COMPACT)
    return (1 + min(8 // across, -(-count // across)), 1 + count) if count else (2, 2)


def host(scene: Scene, width: int, height: int) -> list[Line]:
    """The machine beside its GPUs."""
    return [host_line(scene.glance.part("host"), scene.look, width)][:height]


@lru_cache(16)
def table(look: Look, width: int) -> Table[Facts]:
    """The columns of GPUs in this width."""
    say = look.say

    def memory(gpu: Facts, cells: int) -> Span:
        return Span(f"{look.signs.bar(_full(gpu), cells - 9)} {_memory(gpu):>8}", _memory_tone(gpu))

    def use(gpu: Facts, cells: int) -> Span:
        value = gpu.number("utilization")
        return Span(f"{look.signs.bar(value, cells - 5)} {share(value):>4}")

    columns = [
        Column[Facts](say("GPU"), 3, lambda each, _: Span(each.text("index"), Tone.STRONG)),
        Column[Facts](say("USE"), 9, use, 1, grows=7),
        Column[Facts](say("MEMORY GiB"), 12, memory, 2, grows=6),
        Column[Facts](say("TEMP"), 4, lambda each, _: temperature(each), 3, right=True),
        Column[Facts](say("WATT"), 4, lambda each, _: Span(number_of(each, "power_watts")), 5, right=True),
        Column[Facts](say("MHz"), 4, lambda each, _: Span(number_of(each, "sm_clock_mhz")), 7, right=True),
        Column[Facts](say("REPLICAS"), 8, lambda each, _: Span(" ".join(each.texts("replicas"))), 8, grows=6),
        Column[Facts](say("WRONG"), 6, lambda each, _: trouble(each, look), 4, grows=8),
        Column[Facts](
            say("PCIe/s"), 6, lambda each, _: Span(size(each.number("pcie_bytes_per_second"))), 11, right=True
        ),
        Column[Facts](
            say("NVLink/s"), 8, lambda each, _: Span(size(each.number("nvlink_bytes_per_second"))), 12, right=True
        ),
        Column[Facts](say("NAME"), 12, lambda each, _: Span(each.text("name"), Tone.DIM), 10, grows=4),
    ]
    return Table.of(columns, width, look)


def trouble(gpu: Facts, look: Look) -> Span:
    """What is wrong with it, the worst first; empty when nothing is."""
    say = look.say
    if fault := gpu.text("fault"):
        return Span(fault, Tone.BAD)
    if (xid := gpu.number("xid")) is not None:
        return Span(say("Xid {xid}", xid=f"{xid:.0f}"), Tone.BAD)
    if gpu.true("rows_failed"):
        return Span(say("rows failed"), Tone.BAD)
    if ecc := gpu.number("ecc_uncorrected"):
        return Span(say("{ecc} ECC errors", ecc=number(ecc)), Tone.BAD)
    reasons = sorted(set(gpu.texts("throttle")) - _HARMLESS)
    return Span(say("slowed: {reasons}", reasons=" ".join(reasons)), Tone.WARN) if reasons else Span("")


def temperature(gpu: Facts) -> Span:
    """61C; the driver's own slowing down begins near 90."""
    value = gpu.number("temperature_celsius")
    if value is None:
        return Span(UNKNOWN)
    return Span(f"{value:.0f}C", Tone.PLAIN if value < 80 else Tone.WARN if value < 86 else Tone.BAD)


def host_line(host: Facts, look: Look, width: int) -> Line:
    """CPU, memory, disk and network of the machine on one line, as much of it as fits."""
    say = look.say
    cpu, used = host.number("cpu"), of(host.number("used_bytes"), host.number("memory_bytes"))
    free = of(host.number("disk_free_bytes"), host.number("disk_bytes"))
    memory = f"{gib(host.number('used_bytes'))}/{gib(host.number('memory_bytes'))} GiB"
    sent, received = (size(host.number(f"{way}_bytes_per_second")) for way in ("sent", "received"))
    pieces = [
        Span(f" {say('host')}", Tone.STRONG),
        Span(f"CPU {look.signs.bar(cpu, 6)} {share(cpu)}"),
        Span(f"{say('memory')} {look.signs.bar(used, 6)} {memory}", _high(used)),
        Span(say("disk {free} GiB free", free=gib(host.number("disk_free_bytes"))), _low(free)),
        Span(say("net {out}/s out, {come}/s in", out=sent, come=received)),
    ]
    return flow([Line((piece,)) for piece in pieces], width)


def _host_alone(scene: Scene, width: int) -> list[Line]:
    here = scene.here(Pane.GPUS)
    sign = scene.look.signs.chosen if here else " "
    title = Span(sign + scene.look.say("HOST (no GPU is seen)"), Tone.HERE if here else Tone.HEAD)
    return [Line((title,)), host_line(scene.glance.part("host"), scene.look, width)]


def _grid(scene: Scene, found: list[Facts], at: int, width: int, height: int) -> list[Line]:
    """Several GPUs on a line, one below the other as one reads."""
    here, look = scene.here(Pane.GPUS), scene.look
    across = width // COMPACT
    cells = width // across
    seen = window(-(-len(found) // across), at // across, height - 1)
    title = fit(f"{look.say('GPU'):<4}{look.say('USE'):<14}{look.say('GiB'):>8}", cells)
    note = numbered(range(seen.start * across, min(len(found), seen.stop * across)), len(found))
    text = (look.signs.chosen if here else " ") + (title * across)[: width - 2 - len(note)] + note
    lines = [Line((Span(text, Tone.HERE if here else Tone.HEAD),))]
    for row in seen:
        spans: list[Span] = []
        for nth, gpu in enumerate(found[row * across : (row + 1) * across], row * across):
            spans += _compact(gpu, look, cells, nth == at and here).spans
        lines.append(pad(Line(tuple(spans)), width))
    return lines


def _compact(gpu: Facts, look: Look, cells: int, chosen: bool) -> Line:
    """` 3 ######..  93% 121/140  61C 520W`: what is wrong stands in place of temperature and power."""
    use = gpu.number("utilization")
    wrong = trouble(gpu, look)
    heat = temperature(gpu)
    sign = look.signs.chosen if chosen else " "
    rest = cells - 27
    last = wrong if wrong.text else Span(f"{heat.text:>4} {_watts(gpu)}", heat.tone)
    return Line(
        (
            Span(f"{sign}{fit(gpu.text('index'), 3)}", Tone.STRONG),
            Span(f"{look.signs.bar(use, 8)} {share(use):>4} "),
            Span(f"{_memory(gpu):>8} ", _memory_tone(gpu)),
            Span(fit(last.text, rest, ellipsis=look.signs.ellipsis), last.tone),
        )
    )


def _full(gpu: Facts) -> float | None:
    return of(gpu.number("used_bytes"), gpu.number("memory_bytes"))


def _memory(gpu: Facts) -> str:
    if _full(gpu) is None:
        return UNKNOWN
    return f"{gib(gpu.number('used_bytes'))}/{gib(gpu.number('memory_bytes'))}"


def _memory_tone(gpu: Facts) -> Tone:
    full = _full(gpu)
    return Tone.PLAIN if full is None or full < 0.97 else Tone.BAD


def _watts(gpu: Facts) -> str:
    value = gpu.number("power_watts")
    return UNKNOWN if value is None else f"{value:.0f}W"


def number_of(facts: Facts, key: str) -> str:
    """A whole number."""
    value = facts.number(key)
    return UNKNOWN if value is None else f"{value:.0f}"


def _high(value: float | None) -> Tone:
    return Tone.PLAIN if value is None or value < 0.9 else Tone.BAD


def _low(value: float | None) -> Tone:
    return Tone.PLAIN if value is None or value > 0.05 else Tone.BAD
