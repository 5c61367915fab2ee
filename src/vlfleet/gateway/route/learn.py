"""Coefficients learned from what requests really took: recursive least squares that remembers where it began. Pure.

Where observations cannot tell coefficients apart (a new picture is always processed *and* looked at), these keep the
proportion of their first values; an outlier counts for as much as the largest usual error; no coefficient leaves
`BOUND` times its first value, either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vlfleet.gateway.route.cost import Coefficients
from vlfleet.gateway.route.mirror import Left

FORGET = 0.99
"""Weight of an observation after the next one: a hundred count, so a GPU that throttles is noticed within them."""
UNSURE = 0.5
"""Of its first value, the standard deviation that a coefficient is taken to have at first."""
NOISE = 0.2
"""Of what is predicted, the error that is taken to be usual at first."""
OUTLIER = 3.0
"""Usual errors that one observation may be off."""
BOUND = 30.0
SURE = 40
"""Observations after which a replica's own ones are all that counts."""
_EARLY, _TELL_EVERY = 20, 16
_LEARNED = (
    "first_seconds",
    "preprocess_seconds_per_token",
    "vision_seconds_per_token",
    "prefill_seconds_per_token",
    "step_seconds",
    "sequence_seconds",
)
_USUAL_WEIGHT = 0.05
_WHOLE_WEIGHT, _MOST_PACE = 0.05, 3.0


class LeastSquares:
    """`weights` such that their products with an observation's amounts sum up to its seconds."""

    def __init__(self, prior: Sequence[float]) -> None:
        self._prior = [max(value, 1e-9) for value in prior]
        self.scales = [1.0] * len(prior)
        """Of the prior, each weight: what is learned. Amounts are scaled alike, so that all are of one size."""
        self._covariance = [
            [UNSURE**2 if row == column else 0.0 for column in range(len(prior))] for row in range(len(prior))
        ]
        self.error = NOISE
        """Of what was predicted, the usual error: an average that forgets."""

    @property
    def weights(self) -> list[float]:
        return [scale * prior for scale, prior in zip(self.scales, self._prior, strict=True)]

    def observe(self, amounts: Sequence[float], seconds: float) -> None:
        """One observation: these amounts of work took so long."""
        expected = [amount * prior for amount, prior in zip(amounts, self._prior, strict=True)]
        predicted = sum(scale * value for scale, value in zip(self.scales, expected, strict=True))
        if predicted <= 0:
            return
        # In shares of the prediction: a video must not outvote a hundred pictures.
        x = [value / predicted for value in expected]
        error = seconds / predicted - 1
        usual = max(self.error, 0.02)
        clipped = max(-OUTLIER * usual, min(OUTLIER * usual, error))
        self.error += _USUAL_WEIGHT * (min(abs(error), 2 * OUTLIER * usual) - self.error)
        p = self._covariance
        px = [sum(a * b for a, b in zip(row, x, strict=True)) for row in p]
        noise = NOISE**2
        gain = [value / (noise + sum(a * b for a, b in zip(x, px, strict=True))) for value in px]
        self.scales = [
            min(BOUND, max(1 / BOUND, scale + g * clipped)) for scale, g in zip(self.scales, gain, strict=True)
        ]
        ceiling = UNSURE**2  # forgetting must not blow up what is never observed
        for row, g in enumerate(gain):
            p[row] = [(value - g * other) / FORGET for value, other in zip(p[row], px, strict=True)]
        for row in range(len(p)):
            if p[row][row] > ceiling:
                shrink = (ceiling / p[row][row]) ** 0.5
                for other in range(len(p)):
                    p[row][other] *= shrink
                    p[other][row] *= shrink

    def pace(self, factor: float) -> None:
        """Everything takes `factor` times as long."""
        self.scales = [min(BOUND, max(1 / BOUND, scale * factor)) for scale in self.scales]


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
        """Of "first" and "step": how many times as long as its seed the fleet's very first one took."""

    def pace(self, kind: str, factor: float) -> None:
        """The first observation of its kind sets the pace of all: a seed knows proportions, not this machine. Left to
        least squares, whoever is asked most would learn first how fast it is, and then be asked for being fast."""
        self.paces[kind] = factor
        for learner in self.learners:
            learner.paced(kind, factor)

    def tell(self, learner: Learner) -> None:
        """It has learned something. The others hear of it at once while little is known, and now and then later."""
        self.leave(learner)
        weight = float(min(learner.observations, SURE))
        share = [weight * scale for scale in learner.scales]
        self._shares[learner] = weight, share
        self._weight += weight
        self._sums = [a + b for a, b in zip(self._sums, share, strict=True)]
        self.observations += 1
        if self.observations <= _EARLY or self.observations % _TELL_EVERY == 0:
            for other in self.learners:
                if other is not learner and other.observations < SURE:
                    other.blend()

    def leave(self, learner: Learner) -> None:
        """What it found out no longer counts."""
        weight, share = self._shares.pop(learner, (0.0, []))
        if share:
            self._weight -= weight
            self._sums = [a - b for a, b in zip(self._sums, share, strict=True)]

    def others(self, learner: Learner) -> tuple[list[float], float]:
        """The means over all learners but this one, and how many observations (at most `SURE` each) are behind them."""
        weight, share = self._shares.get(learner, (0.0, [0.0] * len(_LEARNED)))
        total = self._weight - weight
        if total < 0.5:
            return [], 0.0
        return [(a - b) / total for a, b in zip(self._sums, share, strict=True)], total


class Learner:
    """One replica's coefficients, from `seed` on."""

    def __init__(self, seed: Coefficients, fleet: Fleet | None = None) -> None:
        self.seed = seed
        self.observations = 0
        self._fleet = fleet or Fleet()
        self.coefficients = seed
        self._first = LeastSquares(
            (
                seed.first_seconds,
                seed.preprocess_seconds_per_token,
                seed.vision_seconds_per_token,
                seed.prefill_seconds_per_token,
            )
        )
        self._step = LeastSquares((seed.step_seconds, seed.sequence_seconds))
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
        self._set_pace("first", self._first, amounts, seconds)
        self._first.observe(amounts, seconds)
        self._take()

    def decoded(self, steps: int, running: float, seconds: float) -> None:
        """One sequence made `steps` more tokens in `seconds`, with `running` sequences at the same time."""
        if steps > 0:
            amounts = (steps, steps * running)
            self._set_pace("step", self._step, amounts, seconds)
            self._step.observe(amounts, seconds)
            self._take()

    def whole(self, predicted: float, seconds: float) -> None:
        """An answer that came in one piece took `seconds`: it tells how fast the replica is, not with what."""
        if not self._fleet.paces:
            for kind in ("first", "step"):
                self._fleet.pace(kind, seconds / max(predicted, 1e-9))
        pace = max(1 / _MOST_PACE, min(_MOST_PACE, seconds / max(predicted, 1e-9))) ** _WHOLE_WEIGHT
        self._first.pace(pace)
        self._step.pace(pace)
        self._take()

    def paced(self, kind: str, factor: float) -> None:
        """Everything of this kind takes `factor` times as long as the seed says."""
        (self._first if kind == "first" else self._step).pace(factor)
        self.blend()

    def _set_pace(self, kind: str, squares: LeastSquares, amounts: Sequence[float], seconds: float) -> None:
        predicted = sum(amount * weight for amount, weight in zip(amounts, squares.weights, strict=True))
        if kind not in self._fleet.paces and predicted > 0:
            self._fleet.pace(kind, seconds / predicted)

    @property
    def scales(self) -> list[float]:
        """Of the seed, what each coefficient turned out to be."""
        return [*self._first.scales, *self._step.scales]

    def leave(self) -> None:
        """Its replica is gone."""
        self._fleet.leave(self)
        self._fleet.learners.remove(self)

    def _take(self) -> None:
        self.observations += 1
        self._fleet.tell(self)
        self.blend()

    def blend(self) -> None:
        """Takes from the fleet what it does not know itself yet."""
        scales = self.scales
        others, total = self._fleet.others(self) if self.observations < SURE else ([], 0.0)
        if total:
            own = self.observations / (self.observations + min(total, SURE) / 2)
            scales = [own * mine + (1 - own) * theirs for mine, theirs in zip(scales, others, strict=True)]
        values = {name: getattr(self.seed, name) * scale for name, scale in zip(_LEARNED, scales, strict=True)}
        self.coefficients = replace(self.seed, **values)

    @property
    def error(self) -> float:
        """Of what it predicts for first tokens, the share it is usually off by."""
        return self._first.error
