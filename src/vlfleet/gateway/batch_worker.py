"""The batches of a gateway, one after the other: read, checked, asked as any client would, behind everybody else."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from vlfleet.batch.ask import Ask, HttpAsk
from vlfleet.batch.feed import feed
from vlfleet.batch.journal import Journal
from vlfleet.batch.known import Known
from vlfleet.batch.limit import REPLICA_REQUESTS, Limit
from vlfleet.batch.lines import LineFile
from vlfleet.batch.patience import Terms
from vlfleet.batch.record import Reply
from vlfleet.batch.request import ID_BYTES, Request, Settings
from vlfleet.batch.runner import Runner
from vlfleet.batch.settle import settle
from vlfleet.batch.shelf import OUTPUT, Record, Shelf
from vlfleet.batch.source_lines import Lines
from vlfleet.client.http import Http
from vlfleet.client.model import ModelInfo
from vlfleet.client.timeouts import TIMEOUTS
from vlfleet.client.upload import Uploads
from vlfleet.errors import VlfleetError
from vlfleet.gateway.batch_input import check, expired_lines
from vlfleet.gateway.behalf import HEADER, Behalf, Claim

SAVE_SECONDS = 2.0
"""Between two counts on disk; the answers themselves are there at once."""
LONGEST_ANSWER_SECONDS = 3600.0
YIELD_SECONDS = 0.05
EXPIRED_ROWS = 1000
"""Written at once."""
DISK_SECONDS = 30.0
"""Between two looks whether the disk has room again."""

log = logging.getLogger("vlfleet.gateway.batches")


@dataclass
class Polite:
    """Asks only while nobody waits for a turn: a batch takes what the others leave."""

    ask: Ask
    others_wait: Callable[[], bool]

    async def __call__(self, request: Request) -> Reply:
        while self.others_wait():  # noqa: ASYNC110 - the queue tells nobody, and a batch has time
            await asyncio.sleep(YIELD_SECONDS)
        return await self.ask(request)


@dataclass(eq=False)
class Worker:
    """Runs the batches of a shelf, one at a time: the tenant who was served longest ago goes first."""

    shelf: Shelf
    behalf: Behalf
    others_wait: Callable[[], bool]
    replicas: Callable[[], int]
    """How many are ready."""
    url: str = ""
    """Of this gateway, as it reaches itself; nothing begins before it is known."""
    running: Record | None = None
    _runner: Runner | None = None
    _task: asyncio.Task[None] | None = None
    _came: asyncio.Event = field(default_factory=asyncio.Event)
    _served: dict[str, float] = field(default_factory=dict)

    def opened(self, url: str) -> None:
        """The gateway listens."""
        self.url = url
        self._task = asyncio.create_task(self._work())

    def look(self) -> None:
        """There is another batch, or one was cancelled."""
        self._came.set()
        if self._runner and self.running and self.running.status == "cancelling":
            self._runner.stop()

    async def close(self) -> None:
        """Ends now; what was answered is on disk, and the rest is asked after the next start."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            self._came.clear()
            waiting = self.shelf.waiting()
            if not waiting:
                await self._came.wait()
                continue
            record = min(waiting, key=lambda each: (self._served.get(each.tenant, 0.0), each.created_at, each.id))
            self._served[record.tenant] = time.monotonic()
            self.running = record
            try:
                await self._run(record)
            except OSError as error:  # a full disk: everything stays as it is
                log.warning("batch %s waits: %s", record.id, error)
                await asyncio.sleep(DISK_SECONDS)
            except Exception as error:
                log.exception("batch %s failed in the gateway", record.id)
                record.errors = [{"code": "internal_error", "message": type(error).__name__, "line": None}]
                self._finish(record, "failed")
            finally:
                self.running = self._runner = None

    async def _run(self, record: Record) -> None:
        """One batch, from wherever it is to its end.

        Raises:
            OSError: the disk is full.
        """
        if record.status == "validating":
            path = self.shelf.path(record.input_file_id)
            record.total, record.errors = await asyncio.to_thread(check, path, record.endpoint, self.shelf.bounds.rows)
            if record.errors:
                self._finish(record, "failed")
                return
            if record.status == "cancelling":  # while its input was read
                self._finish(record, "cancelled")
                return
            record.become("in_progress")
            record.output_file_id = record.output_file_id or f"file-batch-{secrets.token_hex(16)}"
            record.error_file_id = record.error_file_id or f"file-batch-{secrets.token_hex(16)}"
            self.shelf.save(record)
        output = LineFile(self.shelf.path(record.output_file_id))
        failures = LineFile(self.shelf.path(record.error_file_id))
        error = ""
        try:
            output.open()
            failures.open()
            await self._ask_all(record, output, failures)
        except VlfleetError as failure:
            if self._runner is None or self._runner.journal.error:
                raise OSError(failure.cause) from None
            error = failure.cause
        finally:
            output.close()
            failures.close()
        for file_id, name in ((record.output_file_id, "output"), (record.error_file_id, "errors")):
            if self.shelf.path(file_id).stat().st_size:
                self.shelf.add(file_id, record.tenant, f"{record.id}_{name}.jsonl", OUTPUT)
        if error:
            record.errors = [{"code": "batch_failed", "message": error, "line": None}]
        left = record.total - record.completed - record.failed
        expired = left and time.time() >= record.expires_at
        cancelled = left and record.status == "cancelling"
        self._finish(record, "cancelled" if cancelled else "expired" if expired else "failed" if error else "completed")

    async def _ask_all(self, record: Record, output: LineFile, failures: LineFile) -> None:
        """Asks what has no answer yet. A batch that is cancelled is not asked any more."""
        known = await asyncio.to_thread(Known.of, output, failures)
        header = self.behalf.header(Claim(record.tenant, record.key_sha256))
        http = Http(self.url, "", TIMEOUTS, retries=0)

        async def info() -> ModelInfo:  # pictures stay in the rows: they go no further than this process
            return ModelInfo()

        async def parts(*media: object) -> list[dict[str, object]]:
            return []

        ask = HttpAsk(http, Uploads(http, info), LONGEST_ANSWER_SECONDS, {HEADER: header})
        journal = Journal(output, failures, patience_seconds=60.0)
        limit = Limit(REPLICA_REQUESTS * max(1, self.replicas()))
        runner = Runner(
            Polite(ask, self.others_wait),
            journal,
            known,
            limit,
            terms=Terms(patience_seconds=math.inf, hopeless=None),
        )
        self._runner = runner
        if record.status == "cancelling" or time.time() >= record.expires_at:
            runner.stop()
        expiry = asyncio.get_running_loop().call_later(max(0.0, record.expires_at - time.time()), runner.stop)
        beside = asyncio.create_task(self._counting(record, runner))
        writer = asyncio.create_task(journal.run())
        try:
            lines = Lines(self.shelf.path(record.input_file_id))
            await runner.run(feed(lines, Settings(), parts))
            await asyncio.to_thread(settle, known, output, failures, runner.complete, False)
            if not runner.complete and record.status != "cancelling" and time.time() >= record.expires_at:
                await asyncio.to_thread(self._expire, record, known, failures)
        finally:
            expiry.cancel()
            beside.cancel()
            journal.close()
            await asyncio.gather(writer, beside, return_exceptions=True)
            await http.close()
            count(record, runner)

    def _expire(self, record: Record, known: Known, failures: LineFile) -> None:
        """Puts the rows that were not asked in time into the error file.

        Raises:
            OSError: the disk is full.
        """
        settled = {key[:ID_BYTES] for key in (*known.done, *known.failed)}
        lines = expired_lines(self.shelf.path(record.input_file_id), settled)
        while block := list(islice(lines, EXPIRED_ROWS)):
            failures.append(block)

    async def _counting(self, record: Record, runner: Runner) -> None:
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            count(record, runner)
            with suppress(OSError):
                self.shelf.save(record)

    def _finish(self, record: Record, status: str) -> None:
        for file_id in (record.output_file_id, record.error_file_id):
            if file_id and self.shelf.file(record.tenant, file_id) is None:
                self.shelf.path(file_id).unlink(missing_ok=True)
        record.output_file_id = record.output_file_id if self.shelf.file(record.tenant, record.output_file_id) else ""
        record.error_file_id = record.error_file_id if self.shelf.file(record.tenant, record.error_file_id) else ""
        record.become(status)
        self.shelf.save(record)


def count(record: Record, runner: Runner) -> None:
    tally = runner.tally
    record.completed = tally.answered + tally.reused + tally.done_before
    record.failed = tally.failed + tally.failed_before
