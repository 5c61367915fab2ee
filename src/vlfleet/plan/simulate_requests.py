"""Requests of a workload, drawn at random but the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from vlfleet.plan.demand import Picture, Workload
from vlfleet.plan.kv import BLOCK_SIZE

LEAD_TOKENS = 4
"""Of the chat template before the first picture: <|im_start|>user\\n<|vision_start|>."""


@dataclass(frozen=True)
class Image:
    """A picture with an identity: the same number is the same content."""

    number: int
    picture: Picture
    sent: bool = True
    """As data; otherwise by its uuid alone."""


class Request:
    """One request on its way: what it asks, and how far it is."""

    __slots__ = (
        "arrived",
        "computed",
        "ended",
        "first",
        "generated",
        "images",
        "is_decoding",
        "nameless",
        "number",
        "output_tokens",
        "prompt_tokens",
        "runs",
        "runs_held",
        "spans",
        "turn",
        "want",
    )

    def __init__(self, number: int, images: Sequence[Image], text_tokens: int, output_tokens: int) -> None:
        self.number = number
        self.images = tuple(images)
        self.output_tokens = output_tokens
        self.prompt_tokens = text_tokens + sum(image.picture.tokens for image in images)
        """Never changes; `want` does when a preempted request has to compute its own answer again."""
        self.want = self.prompt_tokens
        """Tokens that must be computed before the next one is sampled."""
        start = min(LEAD_TOKENS, text_tokens)
        ends = list(accumulate((image.picture.tokens for image in images), initial=start))
        self.spans = tuple(pairwise(ends))
        """Where each picture lies in the prompt: from, to."""
        self.runs = _runs(images, ends)
        self.computed = 0
        self.generated = 0
        """Tokens of the answer that have been scheduled."""
        self.runs_held = 0
        self.nameless = 0
        """Blocks held beside the runs."""
        self.is_decoding = False
        self.turn = 0
        """Step in which its first decode was scheduled, less the tokens generated before."""
        self.arrived = self.first = self.ended = -1.0

    @property
    def ttft_seconds(self) -> float:
        """From sending to the first token."""
        return self.first - self.arrived

    @property
    def tpot_seconds(self) -> float:
        """Mean time between two tokens of the answer."""
        return (self.ended - self.first) / max(1, self.output_tokens - 1)


def _runs(images: Sequence[Image], ends: Sequence[int]) -> tuple[tuple[Hashable, int], ...]:
    """The full blocks that each picture adds to the prefix, by everything before them."""
    found: list[tuple[Hashable, int]] = []
    key: Hashable = ()
    for image, end in zip(images, ends[1:], strict=True):
        key = (key, image.number)
        found.append((key, end // BLOCK_SIZE))
    blocks = [0, *(block for _, block in found)]
    return tuple((key, end - before) for (key, end), before in zip(found, blocks, strict=False))


def draw(workload: Workload, pictures: Sequence[Picture], seed: int) -> Iterator[Request]:
    """Requests without end.

    The pictures that a request repeats are the first of a conversation, always in the same order, as in a chat that
    goes on: the working set is as many conversations as it holds. The others are new.
    """
    random_state = random.Random(seed)  # noqa: S311
    media, share = workload.media, workload.repeated_share
    most = min(workload.working_set, -int(-media * share // 1)) if share else 0
    conversations = max(1, workload.working_set // most) if most else 0
    sizes: dict[int, Picture] = {}
    weights = [picture.share for picture in pictures]
    fresh = conversations * most
    number = 0
    while True:
        repeated = min(most, int(media * share) + (random_state.random() < media * share % 1))
        talk = random_state.randrange(conversations) if repeated else 0
        images = []
        for index in range(media):
            if index < repeated:
                identity = talk * most + index
                if identity not in sizes:
                    sizes[identity] = random_state.choices(pictures, weights)[0]
                images.append(Image(identity, sizes[identity], sent=not workload.by_uuid))
            else:
                images.append(Image(fresh, random_state.choices(pictures, weights)[0]))
                fresh += 1
        length = workload.output_tokens * (1 + workload.output_spread * random_state.uniform(-1, 1))
        yield Request(number, images, workload.prompt_tokens, max(1, round(length)))
        number += 1
