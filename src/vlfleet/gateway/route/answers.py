"""How long answers are: learned, since `max_tokens` is a limit that most of them do not reach. Pure."""

from __future__ import annotations

_LEAST_RATE = 0.02
"""Of an answer's length, what it changes of the mean in the long run."""


class Answers:
    """Mean lengths of answers, in tokens, by the order of magnitude of their limits."""

    def __init__(self) -> None:
        self._means: dict[int, tuple[float, int]] = {}
        """By the bits of the limit: the mean, and how many answers it is of."""

    def expected(self, limit: int) -> int:
        """Tokens that an answer with this limit is taken to have; the limit itself until one has come."""
        if limit <= 0:
            return 0
        found = self._means.get(limit.bit_length())
        mean = limit if found is None else round(found[0])
        return limit if mean > limit else mean if mean > 1 else 1

    def came(self, limit: int, tokens: int) -> None:
        """An answer with this limit had so many tokens."""
        mean, count = self._means.get(limit.bit_length(), (0.0, 0))
        rate = max(_LEAST_RATE, 1 / (count + 1))
        self._means[limit.bit_length()] = mean + rate * (tokens - mean), count + 1
