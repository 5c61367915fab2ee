"""The measurement from end to end: host, two cuts of the model, tensor parallelism, and the files that plans read."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
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
        self._shallow = asyncio.Lock()  # held while that engine runs
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
        """Both cuts, side by side where there are two GPUs; then the deep one on both.

        The shallow one tells memory alone: of its speed it would say how fast the CPU is.
        """
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
        """Each with the seconds that it usually takes; side by side, the second start costs nothing."""
        whole, (shallow, deep) = _START_SECONDS + _LOAD_SECONDS, self._depths
        cuts = {self._name(shallow, 1): 0.0 if self.target.pair else _START_SECONDS, self._name(deep, 1): whole}
        if self.target.pair:
            cuts[self._name(deep, 2)] = whole
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

        deep = depth == self._depths[-1]
        held: AbstractAsyncContextManager[None] = nullcontext() if deep else self._shallow
        async with held, running(self.target.engine, spec, place, folder, path.name, tell) as ready:
            start = self._started(spec, ready)
            if deep:
                async with self._shallow:  # a start beside it would take the host's cores from the load
                    await self._load(name, start, ready)

    async def _host(self) -> None:
        self._progress.begin(_HOST)
        found = await asyncio.to_thread(host.measure, self.target.install.python)
        self._costs = host.coefficients(found)
        self._emit(findings.of_host(self._costs, found))

    def _started(self, spec: EngineSpec, ready: Running) -> Start:
        """What the log of an engine that is ready tells of its memory."""
        start = Start(asked.request(self.target, spec), ready.decisions)
        if spec.tensor_parallel_size > 1:
            self._ranks = start
        else:
            self._starts.append(start)
        return start

    async def _load(self, name: str, start: Start, ready: Running) -> None:
        """The speed of an engine that is ready."""
        setup, problems = asked.setup(self.target, start), list[str]()
        sizes = load.Sizes() if self.target.gpus else load.CPU
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
            session = f"vlfleet calibrate of {_today()}: vLLM {self.target.release} on {self.target.where}, "
            session += f"{self.target.model.name} cut to {layers} layers"
            known = memory.calibration(self._starts, self._ranks, self.target.model.shape.num_hidden_layers, session)
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
