"""The speed that `plan` predicts against the speed that vLLM has, on grids fixed and predicted before.

    python -m benchmarks.plan_grid --grid 2 --predict     writes benchmarks/plan_grid2.json; commit it
    python -m benchmarks.plan_grid --grid 2 --models /opt/vl/models --out DIR
                                                          measures it: two H200, vLLM 0.26, 8 to 9 minutes
    python -m benchmarks.plan_grid --grid 2 --report DIR/measured.json
                                                          the tables: as predicted, with a calibration, and the regret
    python -m benchmarks.plan_grid --url q25vl-7b-tp1=http://127.0.0.1:8000      one engine that runs already

vLLM's own Python runs it without an installed vlfleet: PYTHONPATH=src.

Every point is a closed loop with answers of 32 to 96 tokens; no weights are needed (--load-format dummy). All engines
start together on the two GPUs. Engines on one GPU of their own are measured at the same time, then those that take both
GPUs one after the other while everything else is idle. What is measured is in DIR after every point.

Grid 1 is new pictures; it was measured on 2026-11-21 (plan_grid_h200.json), with fewer requests than were predicted
for: its report predicts again for as many as were sent. Grid 2 adds known pictures, text, and two replicas.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.plan_grid_points import GPU, GRIDS, Grid, predict, read_measured, read_predictions
from benchmarks.plan_grid_report import report
from benchmarks.plan_grid_rows import predicted_rows
from vlfleet.hardware.catalogue import find_model
from vlfleet.plan.speed_coefficients import coefficients_of


def predictions(grid: Grid) -> dict[str, Any]:
    """What goes into the file."""
    coefficients = coefficients_of(find_model(GPU))
    return {
        "seconds": grid.seconds,
        "flags": [grid.flags(tp) for tp in (1, 2)],
        "coefficients": asdict(coefficients),
        "points": {point.name: asdict(predict(point, coefficients)) for point in grid.points},
        "rows": predicted_rows(coefficients),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=int, choices=GRIDS, default=2)
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--report", type=Path, metavar="MEASURED")
    parser.add_argument("--models", type=Path)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--url", action="append", default=[], metavar="ENGINE=URL")
    parser.add_argument("--share", type=float, default=1.0, help="of the requests of every point")
    parser.add_argument("--limit", type=float, default=480.0, help="seconds after which no point begins")
    told = parser.parse_args(arguments)
    say: Callable[[str], None] = lambda line: print(line, flush=True)  # noqa: E731
    grid = GRIDS[told.grid]
    if told.predict:
        grid.path.write_text(json.dumps(predictions(grid), indent=1) + "\n", encoding="utf-8")
        return 0
    if told.report:
        say("\n".join(report(grid, *read_measured(told.report))))
        return 0
    from benchmarks.plan_grid_run import Run, serve

    requests = {name: max(8, round(said.requests * told.share)) for name, said in read_predictions(grid).items()}
    with serve(grid, told.models, told.out, dict(each.split("=", 1) for each in told.url)) as engines:
        run = Run(grid, engines, requests, told.out / "measured.json", told.limit, say)
        asyncio.run(run.measure())
    return 0 if run.points else 1


if __name__ == "__main__":
    sys.exit(main())
