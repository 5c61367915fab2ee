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


class Learner:
    """One replica's coefficients, from `seed` on."""

    def __init__(self, seed: Coefficients) -> None:
        self.seed = seed
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

    def first_token(self, requests: int, left: Sequence[Left], seconds: float) -> None:
        """A replica that was never idle gave `requests` first tokens after `seconds`, having done all of `left`."""
        self._first.observe(
            (
                requests,
                sum(each.preprocess_tokens for each in left),
                sum(each.vision_tokens for each in left),
                sum(each.prefill_tokens for each in left),
            ),
            seconds,
        )
        self._take()

    def decoded(self, steps: int, running: float, seconds: float) -> None:
        """One sequence made `steps` more tokens in `seconds`, with `running` sequences at the same time."""
        if steps > 0:
            self._step.observe((steps, steps * running), seconds)
            self._take()

    def whole(self, predicted: float, seconds: float) -> None:
        """An answer that came in one piece took `seconds`: it tells how fast the replica is, not with what."""
        pace = max(1 / _MOST_PACE, min(_MOST_PACE, seconds / max(predicted, 1e-9))) ** _WHOLE_WEIGHT
        self._first.pace(pace)
        self._step.pace(pace)
        self._take()

    def _take(self) -> None:
        first, preprocess, vision, prefill = self._first.weights
        step, sequence = self._step.weights
        self.coefficients = replace(
            self.seed,
            first_seconds=first,
            preprocess_seconds_per_token=preprocess,
            vision_seconds_per_token=vision,
            prefill_seconds_per_token=prefill,
            step_seconds=step,
            sequence_seconds=sequence,
        )

    @property
    def error(self) -> float:
        """Of what it predicts for first tokens, the share it is usually off by."""
        return self._first.error
