"""From logits to the next token of each row."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class SamplingParams:
    """How one answer is drawn, with the meaning that vLLM gives each name."""

    temperature: float = 1.0
    """0 takes the most likely token."""
    top_p: float = 1.0
    top_k: int = 0
    """0 or less: all tokens."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    max_tokens: int = 256
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False

    @property
    def greedy(self) -> bool:
        return self.temperature < 1e-5 or self.top_k == 1

    @property
    def penalised(self) -> bool:
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


@dataclass
class Sampler:
    """Draws for one row: its parameters, its random state, and the tokens that penalties look at."""

    params: SamplingParams
    prompt: list[int]
    end_tokens: frozenset[int]
    """Not drawn before `min_tokens`, or ever with `ignore_eos`."""
    answer: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = torch.Generator()
        if self.params.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(self.params.seed)

    def draw(self, logits: torch.Tensor) -> int:
        """The next token of the row, from its `logits` (vocab_size,), which are changed."""
        params = self.params
        if params.penalised:
            self._penalise(logits)
        if self.end_tokens and (params.ignore_eos or len(self.answer) < params.min_tokens):
            logits[list(self.end_tokens)] = -torch.inf
        if params.greedy:
            token = int(logits.argmax())
        else:
            token = int(torch.multinomial(self._probabilities(logits).cpu(), 1, generator=self._random))
        self.answer.append(token)
        return token

    def takes(self, likeliest: int) -> bool:
        """Whether the token with the highest logit is the next one for certain; if so it is taken."""
        params = self.params
        held_back = params.ignore_eos or len(self.answer) < params.min_tokens
        sure = params.greedy and not params.penalised and not (held_back and likeliest in self.end_tokens)
        if sure:
            self.answer.append(likeliest)
        return sure

    def _penalise(self, logits: torch.Tensor) -> None:
        """repetition_penalty looks at prompt and answer (arXiv 1909.05858), the other two at the answer (OpenAI's)."""
        params = self.params
        if params.repetition_penalty != 1:
            seen = torch.tensor(sorted({*self.prompt, *self.answer}), dtype=torch.long, device=logits.device)
            values = logits[seen]
            penalty = params.repetition_penalty
            logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
        if self.answer and (params.presence_penalty or params.frequency_penalty):
            counts = torch.bincount(torch.tensor(self.answer), minlength=len(logits)).to(logits.device)
            logits -= params.presence_penalty * (counts > 0) + params.frequency_penalty * counts

    def _probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Softmax at the temperature, then top_k, top_p and min_p, in vLLM's order."""
        params = self.params
        logits = logits / params.temperature
        if 0 < params.top_k < len(logits):
            logits[logits < logits.topk(params.top_k).values[-1]] = -torch.inf
        probabilities = logits.softmax(-1)
        if params.top_p < 1:
            ordered, order = probabilities.sort(descending=True)
            beyond = ordered.cumsum(0) - ordered >= params.top_p
            beyond[0] = False  # a top_p too small for float32 is 0
            probabilities[order[beyond]] = 0
        if params.min_p > 0:
            probabilities[probabilities < params.min_p * probabilities.max()] = 0
        return probabilities


def draw_together(samplers: list[Sampler], logits: torch.Tensor) -> list[int | Exception]:
    """The next token of each row of `logits` (rows, vocab_size), or why that row has none.

    Rows that take the likeliest token, most of them, cost one question to the device for all instead of one each.
    """
    unusable = logits.isnan().any(-1)
    drawn: list[int | Exception] = []
    for row, likeliest in enumerate(torch.where(unusable, -1, logits.argmax(-1)).tolist()):
        if likeliest < 0:
            drawn.append(FloatingPointError("the model computed NaN"))
        elif samplers[row].takes(likeliest):
            drawn.append(likeliest)
        else:
            try:
                drawn.append(samplers[row].draw(logits[row]))
            except Exception as error:  # what one row asks for must not cost the others their answers
                drawn.append(error)
    return drawn
