"""Coefficients learned from what requests really took. Pure.

Each observation moves the coefficients that made up its prediction, each by its share, towards what would have been
right, in logarithms: all stay positive, and too slow by half weighs as much as too fast by half. What observations
cannot tell apart (a new picture is always processed *and* looked at) keeps the proportion of its first values. Least
squares with a covariance was tried: a first request slowed down by a compilation drove it to its bounds for good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from vlfleet.gateway.route.cost import Coefficients, Terms
from vlfleet.gateway.route.mirror import Left

RATE = 0.02
"""Of what an observation says, the share that is believed in the long run: a GPU that throttles is noticed within some
fifty observations. With 0.05 the p99 of a fleet with a slow replica is 1.39 of the ideal instead of 1.25."""
MOST_STEP = 1.0
"""Of one observation, in logarithms: an outlier counts as 2.7 times too long or too short."""
NOISE = 0.2
"""Of what is predicted, the error that is taken to be usual at first."""
BOUND = 1000.0
"""Of its first value, how far a coefficient may go either way."""
SURE = 40
"""Observations of a replica that count for the fleet's means; after half as many its own ones count as much."""
_FIRST, _MUCH_FASTER = 8, 0.5
_EARLY, _TELL_EVERY = 20, 16
_LEARNED = (
    "first_seconds",
    "preprocess_seconds_per_token",
    "vision_seconds_per_token",
    "prefill_seconds_per_token",
    "step_seconds",
    "sequence_seconds",
)
_USUAL_WEIGHT, _MOST_ERROR = 0.05, 3.0
_NOTHING: tuple[float, list[float]] = (0.0, [0.0] * len(_LEARNED))


class Weights:
    """Seconds of each amount of work, such that their products with an observation's amounts sum up to its seconds."""

    def __init__(self, prior: Sequence[float]) -> None:
        self._prior = [max(value, 1e-9) for value in prior]
        self.weights = list(self._prior)
        self.scales = [1.0] * len(prior)
        """Of its first value, each weight."""
        self._seen = [0.0] * len(prior)
        """Observations of each, by its shares in them."""
        self.error = NOISE
        """Of what was predicted, the usual error: an average that forgets."""

    def predicted(self, amounts: Sequence[float]) -> float:
        """Seconds that these amounts of work are predicted to take."""
        return sum([amount * weight for amount, weight in zip(amounts, self.weights, strict=True)])

    def observe(self, amounts: Sequence[float], seconds: float) -> None:
        """One observation: these amounts of work took so long."""
        parts = [amount * weight for amount, weight in zip(amounts, self.weights, strict=True)]
        predicted = sum(parts)
        if predicted <= 0 or seconds <= 0:
            return
        ratio = seconds / predicted
        off = abs(ratio - 1)
        self.error += _USUAL_WEIGHT * ((off if off < _MOST_ERROR else _MOST_ERROR) - self.error)
        step = math.log(ratio)
        step = MOST_STEP if step > MOST_STEP else -MOST_STEP if step < -MOST_STEP else step
        for number, part in enumerate(parts):
            if part:
                share = part / predicted
                seen = self._seen[number] = self._seen[number] + share
                rate = 1 / (1 + seen)
                self._move(number, math.exp((rate if rate > RATE else RATE) * share * step))

    def pace(self, factor: float) -> None:
        """Everything takes `factor` times as long."""
        for number in range(len(self.scales)):
            self._move(number, factor)

    def _move(self, number: int, factor: float) -> None:
        scale = self.scales[number] * factor
        scale = BOUND if scale > BOUND else 1 / BOUND if scale < 1 / BOUND else scale
        self.scales[number] = scale
        self.weights[number] = scale * self._prior[number]


class Fleet:
    """What all learners of a fleet found out together, as factors of their seeds.

    A replica that was not asked yet is taken to be as much faster or slower than planned as the others turned out to
    be: else the first one that beats its plan would be asked for ever.
    """

    def __init__(self) -> None:
        self.learners: list[Learner] = []
        self.observations = 0
        self._weight = 0.0
        self._sums = [0.0] * len(_LEARNED)
        self._shares: dict[Learner, tuple[float, list[float]]] = {}
        """What each learner added to the sums."""
        self.paces: dict[str, float] = {}
        """Of "first" and "step": how many times as long as its seed the fleet's first ones took."""
        self._paced: dict[str, tuple[Learner, int]] = {}
        """Who set them, and how often it was seen."""

    def paced_by(self, kind: str, learner: Learner) -> bool:
        """Whether its next observation of this kind may set the pace."""
        setter, count = self._paced.get(kind, (learner, 0))
        return setter is learner and count < _FIRST

    def pace(self, kind: str, factor: float, learner: Learner) -> None:
        """An observation of this kind took `factor` times as long as predicted. The very first one sets the pace of
        all: a seed knows proportions, not this machine, and left to themselves whoever is asked most would learn first
        how fast it is, and then be asked for being fast. It may have been slowed down by a compilation, so one of the
        next few of the same replica that is much faster sets it again."""
        _, count = self._paced.get(kind, (learner, 0))
        self._paced[kind] = learner, count + 1
        if count == 0 or factor < _MUCH_FASTER:
            self.paces[kind] = self.paces.get(kind, 1.0) * factor
            for each in self.learners:
                each.paced(kind, factor)

    def tell(self, learner: Learner) -> None:
        """It has learned something. The others hear of it at once while little is known, and now and then later."""
        seen = learner.observations
        weight = float(seen if seen < SURE else SURE)
        share = [weight * scale for scale in learner.scales]
        before, gone = self._shares.get(learner, _NOTHING)
        self._shares[learner] = weight, share
        self._weight += weight - before
        self._sums = [a - b + c for a, b, c in zip(self._sums, gone, share, strict=True)]
        self.observations += 1
        if self.observations <= _EARLY or self.observations % _TELL_EVERY == 0:
            for other in self.learners:
                if other is not learner and other.observations < SURE:
                    other.blend()

    def others(self, learner: Learner) -> bool:
        """Whether others have found out something, too."""
        return len(self._shares) > 1 or learner not in self._shares

    def means(self) -> list[float]:
        """Over all learners, by their observations, at most `SURE` each; nothing before the first one."""
        return [total / self._weight for total in self._sums] if self._weight > 0.5 else []


class Learner:
    """One replica's coefficients, from `seed` on."""

    def __init__(self, seed: Coefficients, fleet: Fleet | None = None) -> None:
        self.seed = seed
        self.observations = 0
        self._fleet = fleet or Fleet()
        self.coefficients = seed
        self._seeds = [getattr(seed, name) for name in _LEARNED]
        self._first = Weights(
            (
                seed.first_seconds,
                seed.preprocess_seconds_per_token,
                seed.vision_seconds_per_token,
                seed.prefill_seconds_per_token,
            )
        )
        self._step = Weights((seed.step_seconds, seed.sequence_seconds))
        for kind, factor in self._fleet.paces.items():
            self.paced(kind, factor)
        self._fleet.learners.append(self)

    def first_token(self, requests: int, left: Sequence[Left], seconds: float) -> None:
        """A replica that was never idle gave `requests` first tokens after `seconds`, having done all of `left`."""
        amounts = (
            requests,
            sum(each.preprocess_tokens for each in left),
            sum(each.vision_tokens for each in left),
            sum(each.prefill_tokens for each in left),
        )
        self._observe("first", amounts, seconds)
        self._take()

    def decoded(self, steps: int, running: float, seconds: float) -> None:
        """One sequence made `steps` more tokens in `seconds`, with `running` sequences at the same time."""
        if steps > 0:
            self._observe("step", (steps, steps * running), seconds)
            self._take()

    def whole(self, left: Left, terms: Terms, steps: int, expected_steps: int, seconds: float) -> None:
        """An answer that came in one piece took `seconds` and `steps` tokens after its first, not `expected_steps`: it
        tells how far off the prediction was, and each coefficient takes that by its share."""
        decode = terms.decode * steps / expected_steps if expected_steps > 0 else 0.0
        ratio = seconds / max(terms.queue + terms.work + decode, 1e-9)
        prompt = (1, left.preprocess_tokens, left.vision_tokens, left.prefill_tokens)
        self._observe("first", prompt, ratio * self._first.predicted(prompt))
        self._observe("step", (steps, steps), ratio * self._step.predicted((steps, steps)))
        self._take()

    def _observe(self, kind: str, amounts: Sequence[float], seconds: float) -> None:
        weights = self._first if kind == "first" else self._step
        if self._fleet.paced_by(kind, self) and (predicted := weights.predicted(amounts)) > 0:
            self._fleet.pace(kind, seconds / predicted, self)
        weights.observe(amounts, seconds)

    def paced(self, kind: str, factor: float) -> None:
        """Everything of this kind takes `factor` times as long as the seed says."""
        (self._first if kind == "first" else self._step).pace(factor)
        self.blend()

    @property
    def scales(self) -> list[float]:
        """Of the seed, what each coefficient turned out to be."""
        return [*self._first.scales, *self._step.scales]

    def _take(self) -> None:
        self.observations += 1
        self._fleet.tell(self)
        self.blend()

    def blend(self) -> None:
        """Takes from the fleet what it does not know itself yet: few observations of one replica are mostly noise."""
        scales = self.scales
        if self._fleet.others(self) and (means := self._fleet.means()):
            own = self.observations / (self.observations + SURE / 2)
            scales = [own * mine + (1 - own) * theirs for mine, theirs in zip(scales, means, strict=True)]
        first, preprocess, vision, prefill, step, sequence = [
            value * scale for value, scale in zip(self._seeds, scales, strict=True)
        ]
        self.coefficients = Coefficients(first, preprocess, vision, prefill, step, sequence, self.seed.slots)

    @property
    def error(self) -> float:
        """Of what it predicts for first tokens, the share it is usually off by."""
        return self._first.error
