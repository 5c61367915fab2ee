"""The measurement from end to end: host, two cuts of the model, tensor parallelism, and the files that plans read."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlfleet.calibrate import asked, findings, folders, host, load, memory, rows
from vlfleet.calibrate.cuts import Depth, cut_config, depths
from vlfleet.calibrate.engine import Running, holding, running
from vlfleet.calibrate.findings import Result
from vlfleet.calibrate.memory import Start
from vlfleet.calibrate.progress import Progress
from vlfleet.calibrate.target import Target
from vlfleet.engine.launch import EngineSpec, Placement
from vlfleet.errors import VlfleetError
from vlfleet.fleet.folder import FleetFolder
from vlfleet.home import home
from vlfleet.plan import memory_calibration, speed_coefficients
from vlfleet.plan.speed_coefficients import Coefficients, coefficients_of

_START_SECONDS, _LOAD_SECONDS, _FIT_SECONDS = 60.0, 30.0, 20.0
"""Expected, for the progress alone."""
_HOST, _FIT = "CPU costs", "fit"


class Session:
    """One `vlfleet calibrate`. `emit` gets every result as it comes; what goes wrong is one of them."""

    def __init__(self, target: Target, say: Callable[[str], None], emit: Callable[[Result], None]) -> None:
        self.target = target
        self.failed = False
        self._emit = emit
        shape = target.model.shape
        self._depths = depths(shape, min((gpu.memory_bytes for gpu in target.gpus), default=0))
        self._starts: list[Start] = []
        self._ranks: Start | None = None
        self._rows: list[rows.Row] = []
        self._costs: dict[str, float] = {}
        self._loading = asyncio.Lock()
        self._progress = Progress(self._stages(), say)

    async def run(self) -> bool:
        """Whether everything could be measured; what could is written."""
        await self._part(self._host())
        with tempfile.TemporaryDirectory(prefix="vlfleet-calibrate-", ignore_cleanup_errors=True) as scratch:
            async with holding(home() / "calibration" / "engines") as folder:
                await self._engines(Path(scratch), folder)
        await self._part(self._fit())
        return not self.failed

    async def _engines(self, scratch: Path, folder: FleetFolder) -> None:
        """Both cuts, side by side where there are two GPUs; then the deep one on both."""
        target = self.target
        cuts = list(dict.fromkeys(self._depths))
        if target.pair:
            pairs = zip(cuts, target.singles, strict=False)
            await asyncio.gather(*(self._part(self._engine(scratch, folder, cut, place, 1)) for cut, place in pairs))
        else:
            for cut in cuts:
                await self._part(self._engine(scratch, folder, cut, target.singles[0], 1))
        self._starts.sort(key=lambda start: start.request.shape.num_hidden_layers)
        self._memory()
        if target.pair and self._starts:
            await self._part(self._engine(scratch, folder, cuts[-1], target.pair, 2))
            self._memory()

    def _stages(self) -> dict[str, float]:
        """Each with the seconds that it usually takes; cuts that start side by side wait for each other's load."""
        whole = _START_SECONDS + _LOAD_SECONDS
        cuts = {self._name(depth, 1): whole for depth in self._depths}
        if self.target.pair:
            cuts[self._name(self._depths[-1], 1)] = _LOAD_SECONDS
            cuts[self._name(self._depths[-1], 2)] = whole
        return {_HOST: host.SECONDS, **cuts, _FIT: _FIT_SECONDS}

    async def _part(self, work: Coroutine[Any, Any, None]) -> None:
        """What fails is told in one line, and the rest goes on."""
        try:
            await work
        except VlfleetError as error:
            self.failed = True
            self._emit(Result("failure", f"left out: {error}", {"cause": error.cause, "remedy": error.remedy}))

    def _name(self, depth: Depth, ranks: int) -> str:
        tp = f" TP {ranks}" if ranks > 1 else ""
        return f"engine with {depth.layers} + {depth.vision} layers{tp}"

    # The parts

    async def _engine(self, scratch: Path, folder: FleetFolder, depth: Depth, place: Placement, ranks: int) -> None:
        """One engine, from its folder to its end."""
        name = self._name(depth, ranks)
        path = scratch / f"{depth.layers}-{depth.vision}-{ranks}"
        folders.write(path, self.target.model, cut_config(self.target.model.config, depth))
        spec = asked.spec(self.target, path, ranks)
        self._progress.begin(name)

        def tell(phase: str) -> None:
            self._progress.tell(f"{name}, {phase}")

        async with running(self.target.engine, spec, place, folder, path.name, tell) as ready:
            await self._measure(spec, name, ready)

    async def _host(self) -> None:
        self._progress.begin(_HOST)
        found = await asyncio.to_thread(host.measure, self.target.install.python)
        self._costs = host.coefficients(found)
        self._emit(findings.of_host(self._costs, found))

    async def _measure(self, spec: EngineSpec, name: str, ready: Running) -> None:
        """Memory from the log of an engine that is ready, then its speed."""
        start = Start(asked.request(self.target, spec), ready.decisions)
        if spec.tensor_parallel_size > 1:
            self._ranks = start
        else:
            self._starts.append(start)
        setup, problems = asked.setup(self.target, start), list[str]()
        sizes = load.Sizes() if self.target.gpus else load.CPU
        async with self._loading:  # one at a time: the loads share the host's cores
            found = await load.measure(
                ready, setup, sizes, lambda detail: self._progress.tell(f"{name}, {detail}"), problems.append
            )
        self._rows += found
        for row in found:
            self._emit(findings.of_row(row))
        if problems:
            raise VlfleetError(f"{name}: {problems[0]}", "")

    def _memory(self) -> None:
        """Writes what the starts so far tell; on a CPU, where vLLM takes as much as it is told, only checks it."""
        known = memory_calibration.Calibration()
        if not self._starts:
            return
        if self.target.gpus:
            layers = " and ".join(str(start.request.shape.num_hidden_layers) for start in self._starts)
            source = f"vlfleet calibrate of {_today()}: vLLM {self.target.release} on {self.target.where}, "
            source += f"{self.target.model.name} cut to {layers} layers"
            known = memory.calibration(self._starts, self._ranks, self.target.model.shape.num_hidden_layers, source)
            if not known.starts:
                self.failed = True
                self._emit(Result("failure", "left out: memory: the engines' logs do not fit what was asked for", {}))
                return
            file = memory_calibration.write(known)
            self._emit(findings.of_memory(known))
            self._emit(Result("file", f"memory: {file}", {"memory": str(file)}))
        for start in [self._ranks] if self._ranks else self._starts:
            if found := memory.check(start, known):
                self._emit(findings.of_check(found))

    async def _fit(self) -> None:
        """Writes the coefficients of speed; without a GPU there is no plan that would read them."""
        if self.target.gpu is None:
            self._emit(Result("note", "nothing is written: `vlfleet plan` plans for GPUs", {}))
            return
        self._progress.begin(_FIT)
        # Those that are fitted come out higher than one core's time alone: in the server threads wait for each other.
        alone = {name: cost for name, cost in self._costs.items() if name not in speed_coefficients.FITTED}
        before = replace(coefficients_of(self.target.gpu), **alone)
        found: Coefficients = before
        said = [f"vlfleet calibrate of {_today()} with {self.target.model.name}"]
        enough = len(self._rows) >= rows.FEWEST_ROWS
        if enough:
            found = await asyncio.to_thread(rows.fitted, self._rows, before)
            errors = rows.errors(self._rows, found)
            said += [f"{name}: off by {error:+.1f} %" for name, error in errors.items()]
            self._emit(findings.of_fit(rows.names(self._rows), before, found, errors))
        if enough or alone:
            file = speed_coefficients.write(found, self.target.where, self.target.release, said)
            self._emit(Result("file", f"speed: {file}", {"speed": str(file)}))
        if not enough:
            raise VlfleetError(f"speed was not fitted: {len(self._rows)} rows were measured", "")


def _today() -> str:
    return time.strftime("%Y-%m-%d")
