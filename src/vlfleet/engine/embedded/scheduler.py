"""The thread that runs the model: takes waiting requests in, decodes all running ones together, hands tokens out."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from vlfleet.engine.embedded.detokenize import Detokenizer
from vlfleet.engine.embedded.encoder_cache import EncoderCache
from vlfleet.engine.embedded.kv import BatchCache
from vlfleet.engine.embedded.metrics import Metrics
from vlfleet.engine.embedded.model import Model
from vlfleet.engine.embedded.prompt import Prompt, Reference, Seen
from vlfleet.engine.embedded.protocol import RequestError
from vlfleet.engine.embedded.sampling import Sampler, SamplingParams, draw_together

CLOSE_SECONDS = 3.0
"""A long prompt may take longer than anyone waits for the end of a process."""


QUEUED_PIXEL_BYTES = 2 << 30
"""Of pictures that wait preprocessed: one of 16,384 tokens takes 0.3 GB."""


@dataclass(frozen=True)
class Delta:
    """A piece of an answer. The last one has a `finish_reason` (stop or length) or an `error`."""

    text: str = ""
    tokens: int = 0
    """Of the answer so far."""
    finish_reason: str | None = None
    error: RequestError | None = None


@dataclass(eq=False)
class Job:
    """A request on its way. `emit` is called in the scheduler's thread and must not block."""

    prompt: Prompt
    params: SamplingParams
    emit: Callable[[Delta], None]
    arrived: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    started: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0

    @property
    def reserved_tokens(self) -> int:
        """Length that its row of the cache may reach."""
        return len(self.prompt.tokens) + self.params.max_tokens

    @property
    def pixel_bytes(self) -> int:
        """That its media take until the vision tower has seen them."""
        return sum(reference.medium.pixel_values.nbytes for reference in self.prompt.media if reference.medium)


@dataclass(frozen=True)
class Limits:
    """How much may run at once."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_num_queued_reqs: int
    kv_tokens: int
    """Tokens that the key-value cache may hold."""


@dataclass
class _Row:
    """A running request, at the same index as its row of the cache."""

    job: Job
    sampler: Sampler
    detokenizer: Detokenizer
    position: int


class Scheduler:
    """Continuous batching. Between two decoding steps it reads new prompts, so nobody waits for another to finish."""

    def __init__(
        self,
        model: Model,
        limits: Limits,
        decode: Callable[[list[int]], str],
        end_tokens: frozenset[int],
        vocab_size: int,
        encoder_cache: EncoderCache,
        metrics: Metrics,
    ) -> None:
        self._model, self._limits, self._decode_text = model, limits, decode
        self._end_tokens, self._vocab_size = end_tokens, vocab_size
        self._encoder_cache, self._metrics = encoder_cache, metrics
        self._waiting: deque[Job] = deque()
        self._rows: list[_Row] = []
        self._cache = BatchCache()
        self._changed = threading.Condition()
        self._closing = False
        self._broken = False
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        # read when they are asked for: a long prompt would keep them old for seconds
        metrics.running.set_function(lambda: len(self._rows))
        metrics.waiting.set_function(lambda: len(self._waiting))
        metrics.kv_usage.set_function(self._kv_usage)
        self.steps = 0
        """Forward passes done; grows as long as there is work."""

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread after the step it is in, but wait no longer; requests still there get an error."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)

    @property
    def alive(self) -> bool:
        """False once it cannot serve any more: /health says so, and the supervisor starts another."""
        return self._thread.is_alive() and not self._broken

    def submit(self, job: Job) -> None:
        """Queue a request.

        Raises:
            RequestError: 503 when the queue is full, 400 when it could never fit.
        """
        if job.reserved_tokens > self._limits.kv_tokens:
            cause = (
                f"prompt and answer may need {job.reserved_tokens:,} tokens, memory holds {self._limits.kv_tokens:,}"
            )
            raise RequestError(cause, "ask for fewer max_tokens, or raise --kv-cache-memory-bytes")
        with self._changed:
            if self._closing:
                raise _closing()
            pixel_bytes = job.pixel_bytes + sum(waiting.pixel_bytes for waiting in self._waiting)
            if len(self._waiting) >= self._limits.max_num_queued_reqs or (
                self._waiting and pixel_bytes > QUEUED_PIXEL_BYTES
            ):
                raise RequestError(f"{len(self._waiting)} requests are waiting already", "try again soon", status=503)
            self._waiting.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Give the place of a request back, in the queue at once; it emits nothing more."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                self._metrics.finished("abort")
            self._changed.notify()

    @torch.inference_mode()
    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._rows or self._closing):
                    self._changed.wait()
                if self._closing:
                    break
            try:
                self._drop_cancelled()
                self._admit()
                if self._rows:
                    self._step()
            except Exception as error:  # not foreseen; what runs is lost, but the engine goes on
                self._fail_all(error)
        with self._changed:
            left = [*self._waiting, *(row.job for row in self._rows)]
            self._waiting.clear()
        for job in left:
            self._emit(job, Delta(error=_closing()))

    def _drop_cancelled(self) -> None:
        for index in range(len(self._rows) - 1, -1, -1):
            if self._rows[index].job.cancelled:
                self._metrics.finished("abort")
                self._leave(index)

    def _admit(self) -> None:
        """Read waiting prompts in order of arrival, while there is room and the step's budget of tokens lasts."""
        budget = self._limits.max_num_batched_tokens
        while budget > 0:
            with self._changed:
                if not self._waiting or not self._fits(self._waiting[0]):
                    return
                job = self._waiting.popleft()
            budget -= len(job.prompt.tokens)
            rows_before = len(self._cache.lengths)
            try:
                self._prefill(job)
            except Exception as error:  # a request must never end the engine; it alone fails
                while len(self._cache.lengths) > rows_before:
                    if isinstance(error, FloatingPointError):
                        self._cache.clear(len(self._cache.lengths) - 1)
                    self._cache.remove(len(self._cache.lengths) - 1)
                del self._rows[rows_before:]
                if not self._rows:
                    self._cache = BatchCache()
                self._fail(job, error)

    def _fits(self, job: Job) -> bool:
        """The cache is a rectangle: every row costs as much as the longest may become."""
        longest = max([job.reserved_tokens, *(row.job.reserved_tokens for row in self._rows)])
        rows = len(self._rows) + 1
        return rows <= self._limits.max_num_seqs and rows * longest <= self._limits.kv_tokens

    def _prefill(self, job: Job) -> None:
        job.started = time.monotonic()
        prompt = job.prompt
        media = [(reference.start, self._look(reference).embeddings) for reference in prompt.media]
        logits = self._model.prefill(prompt.tokens, media, prompt.positions, self._cache)
        prompt.media.clear()  # 19 KB of pixels a visual token, and embeddings that only the cache may keep
        self.steps += 1
        row = _Row(
            job,
            Sampler(job.params, prompt.tokens, self._end_tokens),
            Detokenizer(self._decode_text, job.params.stop),
            prompt.next_position,
        )
        self._rows.append(row)
        job.first_token = time.monotonic()
        self._metrics.prompt_tokens.inc(len(prompt.tokens))
        self._metrics.queue.observe(job.started - job.arrived)
        self._metrics.prefill.observe(job.first_token - job.started)
        self._metrics.ttft.observe(job.first_token - job.arrived)
        (token,) = self._draw([row], logits[None])
        if isinstance(token, Exception):
            raise token
        self._take(len(self._rows) - 1, token)

    def _look(self, reference: Reference) -> Seen:
        """The embeddings of a medium; asks the cache again, for a request before this one may have filled it."""
        reference.seen = reference.seen or self._encoder_cache.peek(reference.key)
        if reference.seen is None:
            assert reference.medium is not None
            seen = Seen(self._model.see(reference.medium), reference.medium.grid)
            self._encoder_cache.put(reference.key, seen)
            reference.seen, reference.medium = seen, None
        return reference.seen

    def _step(self) -> None:
        """One token for every running request."""
        tokens = [row.sampler.answer[-1] for row in self._rows]
        try:
            logits = self._model.decode(tokens, [row.position for row in self._rows], self._cache)
        except Exception as error:  # as above; a broken forward pass leaves no row usable
            self._fail_all(error)
            return
        self.steps += 1
        for row in self._rows:
            row.position += 1
        drawn = self._draw(self._rows, logits)
        for index in range(len(self._rows) - 1, -1, -1):  # backwards: leaving moves the last row, which is done by then
            row, token = self._rows[index], drawn[index]
            try:
                if isinstance(token, Exception):
                    raise token
                self._take(index, token)
            except Exception as error:
                if index < len(self._rows) and self._rows[index] is row:
                    self._cache.clear(index)
                    self._leave(index)
                self._fail(row.job, error)

    def _draw(self, rows: list[_Row], logits: torch.Tensor) -> list[int | Exception]:
        logits[:, self._vocab_size :] = -torch.inf  # padding of the vocabulary, never trained
        return draw_together([row.sampler for row in rows], logits)

    def _take(self, index: int, token: int) -> None:
        """Hand out the text of a row's next token, and free the row if it was the last."""
        row = self._rows[index]
        job, params = row.job, row.job.params
        now = time.monotonic()
        if job.last_token:
            self._metrics.inter_token.observe(now - job.last_token)
        job.last_token = now
        self._metrics.generation_tokens.inc()
        count = len(row.sampler.answer)
        ended = (token in self._end_tokens and not params.ignore_eos) or token in params.stop_token_ids
        text = "" if ended else row.detokenizer.push(token)
        reason = "stop" if ended or row.detokenizer.stopped else "length" if count >= params.max_tokens else None
        if reason:
            text += row.detokenizer.finish()
            self._metrics.finished(reason)
            self._metrics.e2e.observe(now - job.arrived)
            self._metrics.decode.observe(now - job.first_token)
            self._leave(index)
        if text or reason:
            self._emit(job, Delta(text, count, reason))

    def _leave(self, index: int) -> None:
        """Free a row; the last one takes its place, as in the cache."""
        self._cache.remove(index)
        self._rows[index] = self._rows[-1]
        self._rows.pop()
        if not self._rows:
            self._cache = BatchCache()

    def _fail_all(self, error: Exception) -> None:
        rows, self._rows, self._cache = self._rows, [], BatchCache()
        for row in rows:
            self._fail(row.job, error)

    def _fail(self, job: Job, error: Exception) -> None:
        self._metrics.finished("error")
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
            refusal = RequestError("no memory left for this request", "send smaller pictures or try again", status=503)
        else:
            traceback.print_exception(error)
            # after an illegal access or a device-side assert every later call on the GPU fails as well
            self._broken = self._broken or isinstance(error, torch.AcceleratorError)
            what = str(error) if isinstance(error, FloatingPointError) else type(error).__name__
            refusal = RequestError(f"the engine failed on this request: {what}", "see its log", status=500)
        self._emit(job, Delta(error=refusal))

    @staticmethod
    def _emit(job: Job, delta: Delta) -> None:
        if not job.cancelled:
            with contextlib.suppress(RuntimeError):  # the event loop that waited for it is closed
                job.emit(delta)

    def _kv_usage(self) -> float:
        rows = list(self._rows)
        used = len(rows) * max((row.job.reserved_tokens for row in rows), default=0)
        return used / self._limits.kv_tokens


def _closing() -> RequestError:
    return RequestError("the engine is shutting down", "try again", status=503)
