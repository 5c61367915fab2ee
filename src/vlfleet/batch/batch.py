"""A batch from its source to its output, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlfleet.batch.ask import HttpAsk
from vlfleet.batch.facts import ready_replicas, watch
from vlfleet.batch.feed import feed
from vlfleet.batch.journal import Journal, Output
from vlfleet.batch.known import Known
from vlfleet.batch.limit import MOST, REPLICA_REQUESTS, Limit
from vlfleet.batch.lines import LineFile, beside, unwritable
from vlfleet.batch.patience import Terms
from vlfleet.batch.request import Settings
from vlfleet.batch.runner import Runner
from vlfleet.batch.settle import settle
from vlfleet.batch.source import Source
from vlfleet.batch.tally import Tally
from vlfleet.client import AsyncClient, ModelInfo
from vlfleet.client.http import Http
from vlfleet.client.upload import Uploads
from vlfleet.errors import ExitCode, VlfleetError

TICK_SECONDS = 1.0


@dataclass(frozen=True)
class Job:
    """What is to be done, and how."""

    source: Source
    out: Path
    base_url: str
    """Without /v1."""
    api_key: str = ""
    settings: Settings = field(default_factory=Settings)
    ordered: bool = False
    """Answers stand in the order of the source when all are there."""
    terms: Terms = field(default_factory=Terms)
    timeout_seconds: float = 600.0
    max_concurrency: int = MOST
    fit: bool = False
    """Pictures are brought to the model's own size here, before they travel."""


@dataclass(eq=False)
class Batch:
    """One run of a job. `stop` takes no more rows; those in flight end."""

    job: Job
    warn: Callable[[str], None] = lambda line: None
    tick: Callable[[Batch], None] = lambda batch: None
    """Called about once a second."""
    tally: Tally = field(default_factory=Tally)
    model: ModelInfo = field(default_factory=ModelInfo)
    """What the server says."""
    replicas: int | None = None
    """Ready ones at the beginning; None where the server is no vlfleet gateway."""
    runner: Runner | None = None
    stopped: bool = False
    complete: bool = False

    def stop(self) -> None:
        """Takes no more rows."""
        self.stopped = True
        if self.runner:
            self.runner.stop()

    @property
    def exit_code(self) -> ExitCode:
        """0: every row has an answer; 130: stopped before; 1: some failed."""
        if self.stopped and not self.complete:
            return ExitCode.INTERRUPTED
        return ExitCode.FAILED if self.tally.failed or self.tally.failed_before else ExitCode.DONE

    async def run(self) -> None:
        """Asks every row that has no answer yet.

        Raises:
            VlfleetError: the server cannot be asked, or the output not written. What was answered is on disk.
        """
        job = self.job
        async with (
            AsyncClient(job.base_url, job.api_key, fit=job.fit, retries=0) as client,
            opened(Http(job.base_url, job.api_key, client.timeouts, retries=0)) as http,
        ):
            self.model = await client.model_info()  # before anything is written
            async with self._files() as (output, failures):
                known = await asyncio.to_thread(Known.of, output, failures)
                self.tally.total = job.source.total
                journal = Journal(output, failures, job.terms.patience_seconds, self.warn)
                await self._ask_all(client, http, known, journal)
                await asyncio.to_thread(settle, known, output, failures, self.complete, job.ordered)

    async def _ask_all(self, client: AsyncClient, http: Http, known: Known, journal: Journal) -> None:
        job = self.job
        self.replicas = await ready_replicas(http)
        ask = HttpAsk(http, Uploads(http, client.model_info), job.timeout_seconds)
        limit = Limit(REPLICA_REQUESTS * max(1, self.replicas or 1), job.max_concurrency)
        runner = self.runner = Runner(ask, journal, known, limit, self.tally, job.terms, self.warn)
        settings = job.settings if job.settings.model else Settings(job.settings.fields, self.model.id)
        beside = [asyncio.create_task(self._ticking())]
        if self.replicas:
            beside.append(asyncio.create_task(watch(http, self.replicas, limit.scaled)))
        writer = asyncio.create_task(journal.run())
        if self.stopped:
            runner.stop()
        try:
            await runner.run(feed(job.source, settings, client.parts))
            self.complete = runner.complete
        finally:
            for task in beside:
                task.cancel()
            journal.close()
            await asyncio.gather(writer, *beside, return_exceptions=True)
            self.tick(self)

    async def _ticking(self) -> None:
        while True:
            self.tally.sample(asyncio.get_running_loop().time())
            self.tick(self)
            await asyncio.sleep(TICK_SECONDS)

    @asynccontextmanager
    async def _files(self) -> AsyncIterator[tuple[Output, LineFile]]:
        output, failures = open_output(self.job.out), LineFile(failures_path(self.job.out))
        try:
            await asyncio.to_thread(output.open)
            failures.open()
            yield output, failures
        finally:
            failures.close()
            output.close()
            with suppress(OSError):
                if not failures.path.stat().st_size:
                    failures.path.unlink()


@asynccontextmanager
async def opened(http: Http) -> AsyncIterator[Http]:
    try:
        yield http
    finally:
        await http.close()


def open_output(path: Path) -> Output:
    """The output of that name, not opened yet.

    Raises:
        VlfleetError: exit code 2, it is of no known kind, or its folder cannot be made.
    """
    from vlfleet.batch.parts import PartFolder

    kinds: dict[str, Callable[[Path], Output]] = {".jsonl": LineFile, ".ndjson": LineFile, ".parquet": PartFolder}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise VlfleetError(f"{path} is neither .jsonl nor .parquet", "name it OUT.jsonl or OUT.parquet", ExitCode.USAGE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None
    return kind(path)


def failures_path(out: Path) -> Path:
    """Where failed rows go."""
    return beside(out, "failed")


def facts(batch: Batch) -> dict[str, Any]:
    """What came of it, for JSON."""
    out, failures = batch.job.out, failures_path(batch.job.out)
    return {
        "complete": batch.complete,
        "output": str(out),
        "failures": str(failures) if failures.exists() else None,
        "model": batch.model.id,
        **batch.tally.facts(),
    }
