"""One replica as the router sees it: its mirror, what it has to do, and how fast it has turned out to be.

Pure: every time is given, in seconds of one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlfleet.gateway.route.answers import Answers
from vlfleet.gateway.route.correction import Correction
from vlfleet.gateway.route.cost import Coefficients, Load, Terms, predict
from vlfleet.gateway.route.features import Features
from vlfleet.gateway.route.learn import Fleet, Learner
from vlfleet.gateway.route.mirror import Capacities, Left, Mirror, Visit

_TOGETHER_SECONDS = 0.002
"""First tokens that come closer than this are of one step."""
_UNDER_WAY = 0.9
"""Of the work at the head of the queue, at most so much is taken to be done before its first token shows it."""
ROOM_SECONDS = 4.0
"""Predicted work on prompts that a replica may have before the next request waits at the gateway: enough that it is
never idle, little enough that a request of another key, or an urgent one, does not stand behind a long line."""
ROOM_REQUESTS = 32
"""It gets so many at once in any case: slow engines must decode many sequences together, too."""
LESSONS_A_SECOND, MOST_LESSONS = 100.0, 100.0
"""A replica learns from so many answers in a second, and from so many at once: more would tell nothing new (it is sure
of itself after 40), and learning costs as much as choosing."""
MOST_PER_SLOT = 1.25
"""Requests for each sequence that it can decode: media of the next ones are processed while they wait for a slot."""


@dataclass(eq=False)
class Job:
    """A request at a replica."""

    visit: Visit
    terms: Terms
    """As predicted when it was sent."""
    answer_tokens: int
    """As expected then."""
    limit_tokens: int
    """The most that it may have."""
    sent_at: float
    streams: bool = True
    """Its first token will be seen."""
    first_at: float = 0.0
    running: int = 0
    """Sequences that decoded when it began to."""


class Tracker:
    """Everything about one replica that the cost needs."""

    def __init__(
        self,
        name: str,
        capacities: Capacities,
        seed: Coefficients,
        fleet: Fleet | None = None,
        answers: Answers | None = None,
    ) -> None:
        """`fleet` and `answers` are what all replicas of a fleet learn together."""
        self.name = name
        self.answers = answers or Answers()
        self.mirror = Mirror(capacities)
        self.correction = Correction(self.mirror)
        self.learner = Learner(seed, fleet)
        self.work_seconds = 0.0
        """Predicted, of all requests that were ever sent there: what fairness is measured by."""
        self._waiting: dict[Job, None] = {}
        """Without a first token, in the order in which they were sent."""
        self._decoding: dict[Job, None] = {}
        self._preprocess_seconds = 0.0
        self._engine_seconds = 0.0
        self._left_tokens = 0
        self._moved_at = 0.0
        """When it last gave a first token, or began to work after a rest."""
        self._batch: list[Left] = []
        """Of the first tokens that came at `_moved_at`."""
        self._batch_began = self._batch_ended = 0.0
        self._lessons, self._lessons_at = MOST_LESSONS, 0.0

    @property
    def in_flight(self) -> int:
        return len(self._waiting) + len(self._decoding)

    def load(self, now: float) -> Load:
        """What it has to do at `now`."""
        waiting, decoding = self._waiting, self._decoding
        if waiting:
            self._presume(now)
        if not waiting:
            return Load(0.0, 0.0, len(decoding), self._left_tokens)
        head = next(iter(waiting)).terms
        gone, computed = now - self._moved_at, _UNDER_WAY * (head.vision + head.prefill)
        processed = _UNDER_WAY * head.preprocess
        return Load(
            max(0.0, self._preprocess_seconds - (gone if gone < processed else processed)),
            max(0.0, self._engine_seconds - (gone if gone < computed else computed)),
            len(waiting) + len(decoding),
            self._left_tokens,
        )

    def room(self, now: float) -> bool:
        """Whether it should get another request now, and not later."""
        in_flight = self.in_flight
        if in_flight >= MOST_PER_SLOT * self.learner.coefficients.slots:
            return False
        if in_flight < ROOM_REQUESTS:
            return True
        load = self.load(now)
        return max(load.preprocess_seconds, load.engine_seconds) < ROOM_SECONDS

    def predict(self, request: Features, now: float) -> tuple[Left, Terms]:
        """What `request` would cost here, if it were sent at `now`. Changes nothing."""
        left = self.mirror.look(request)
        answer_tokens = self.answers.expected(request.answer_tokens)
        return left, predict(left, answer_tokens, self.load(now), self.learner.coefficients)

    def sent(self, request: Features, terms: Terms, now: float, *, streams: bool = True) -> Job:
        """`request` was sent at `now`; `streams`: its first token will be seen."""
        if not self._waiting:
            self._moved_at = now
        limit = request.answer_tokens
        job = Job(self.mirror.dispatch(request), terms, self.answers.expected(limit), limit, now, streams)
        self._waiting[job] = None
        self._preprocess_seconds += terms.preprocess
        self._engine_seconds += terms.vision + terms.prefill
        self._left_tokens += job.answer_tokens
        self.work_seconds += terms.work + terms.decode
        return job

    def first_token(self, job: Job, now: float) -> None:
        """The first token of `job` came at `now`. A second call says nothing new."""
        if job not in self._waiting:
            return
        self.mirror.answered(job.visit)
        if self._batch and now - self._batch_ended > _TOGETHER_SECONDS:
            self._teach()
        if not self._batch:
            self._batch_began = max(job.sent_at, self._moved_at)
        self._batch.append(job.visit.left)
        self._batch_ended = now
        self._begin_decoding(job, now)

    def finished(self, job: Job, now: float, answer_tokens: int | None = None) -> None:
        """`job` ended well, with so many tokens when they were counted."""
        tokens = job.answer_tokens if answer_tokens is None else answer_tokens
        if answer_tokens:
            self.answers.came(job.limit_tokens, answer_tokens)
        if not job.streams and self._heeds(now):
            self.learner.whole(job.visit.left, job.terms, tokens - 1, job.answer_tokens - 1, now - job.sent_at)
        elif job.streams and job in self._waiting:
            self.first_token(job, now)
        elif job.streams and job in self._decoding and answer_tokens and self._heeds(now):
            running = (job.running + len(self._decoding)) / 2
            self.learner.decoded(answer_tokens - 1, running, now - job.first_at)
        self.mirror.finished(job.visit, tokens)
        self._leave(job, now)

    def failed(self, job: Job, now: float, *, missed: bool = False) -> None:
        """`job` ended without an answer, or its client left. `missed`: the engine lacked what was sent by its name."""
        if missed:
            self.mirror.missed(job.visit)
        else:
            self.mirror.failed(job.visit)
        self._leave(job, now)

    def restarted(self, capacities: Capacities | None = None) -> None:
        """A new engine process, with nothing in its caches. Requests of the old one end by `failed`, as ever."""
        self.mirror.restarted(capacities)

    def _presume(self, now: float) -> None:
        """A job whose first token nobody sees has had it when that was predicted."""
        while self._waiting:
            head = next(iter(self._waiting))
            if head.streams or now < head.sent_at + head.terms.first_token:
                return
            self._begin_decoding(head, now)

    def _begin_decoding(self, job: Job, now: float) -> None:
        self._leave_queue(job)
        job.first_at, job.running = now, len(self._decoding) + 1
        self._decoding[job] = None
        self._moved_at = now

    def _leave(self, job: Job, now: float) -> None:
        if job in self._waiting:
            self._leave_queue(job)
            self._moved_at = now
        elif job in self._decoding:
            del self._decoding[job]
        else:
            return
        self._left_tokens -= job.answer_tokens

    def _leave_queue(self, job: Job) -> None:
        del self._waiting[job]
        self._preprocess_seconds -= job.terms.preprocess
        self._engine_seconds -= job.terms.vision + job.terms.prefill
        if not self._waiting:  # sums of floats keep a rest
            self._preprocess_seconds = self._engine_seconds = 0.0

    def _heeds(self, now: float) -> bool:
        """Whether it learns from what came at `now`."""
        saved = self._lessons + (now - self._lessons_at) * LESSONS_A_SECOND
        self._lessons, self._lessons_at = (saved if saved < MOST_LESSONS else MOST_LESSONS), now
        if self._lessons < 1:
            return False
        self._lessons -= 1
        return True

    def _teach(self) -> None:
        seconds = self._batch_ended - self._batch_began
        if seconds > 0 and self._heeds(self._batch_ended):
            self.learner.first_token(len(self._batch), self._batch, seconds)
        self._batch.clear()
