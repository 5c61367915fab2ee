"""Muon for the hidden matrices, AdamW for the rest.

Muon orthogonalises each matrix's momentum by five Newton-Schulz steps (Jordan et al. 2024, coefficients from there) and
scales it by 0.2 sqrt(max(rows, columns)) so that its updates are as large as AdamW's (Liu et al. 2025,
arXiv:2502.16982). Matrices of one shape go through together; a fused qkv matrix counts as three.
"""

from __future__ import annotations

import torch
from torch import Tensor


def orthogonalise(stack: Tensor) -> Tensor:
    """Return matrices (n, rows, columns) with all singular values near 1, in bfloat16."""
    x: Tensor = stack.bfloat16()
    wide = x.shape[1] > x.shape[2]
    if wide:
        x = x.mT
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if wide else x


class Muon:
    """Muon over 2-d parameters, stepped with the learning rate given each time."""

    def __init__(self, named: dict[str, Tensor], momentum: float = 0.95, weight_decay: float = 0.05) -> None:
        self.momentum, self.weight_decay = momentum, weight_decay
        self.groups: dict[torch.Size, list[tuple[Tensor, int]]] = {}
        for name, parameter in named.items():
            parts = 3 if "qkv" in name else 1
            one = torch.Size((parameter.shape[0] // parts, parameter.shape[1]))
            self.groups.setdefault(one, []).append((parameter, parts))
        self.buffers = {
            one: torch.zeros(sum(parts for _, parts in members), *one, device=members[0][0].device)
            for one, members in self.groups.items()
        }

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        for one, members in self.groups.items():
            gradient = torch.cat([p.grad.view(parts, *one) for p, parts in members if p.grad is not None])
            buffer = self.buffers[one].lerp_(gradient, 1 - self.momentum)
            update = orthogonalise(gradient.lerp(buffer, self.momentum)).float()
            update *= 0.2 * max(one) ** 0.5 * learning_rate
            pieces = torch.split(update, [parts for _, parts in members])
            parameters = [p for p, _ in members]
            torch._foreach_mul_(parameters, 1 - learning_rate * self.weight_decay)
            torch._foreach_sub_(
                parameters, [piece.reshape(p.shape) for piece, p in zip(pieces, parameters, strict=True)]
            )


class Optimizer:
    """Muon and AdamW behind one `step`; `scale` in [0, 1] is the schedule's factor."""

    def __init__(self, named: dict[str, Tensor], muon_rate: float = 1e-3, adam_rate: float = 1e-3) -> None:
        hidden = {n: p for n, p in named.items() if p.ndim == 2 and "embed_tokens" not in n}
        rest = {n: p for n, p in named.items() if n not in hidden}
        self.muon, self.muon_rate, self.adam_rate = Muon(hidden), muon_rate, adam_rate
        groups = [
            {"params": [p for n, p in rest.items() if p.ndim > 1], "weight_decay": 0.02},
            {"params": [p for n, p in rest.items() if p.ndim == 1], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, lr=adam_rate, betas=(0.9, 0.98), fused=next(iter(rest.values())).is_cuda)
        self.parameters = list(named.values())

    def state(self) -> list[Tensor]:
        """Return every tensor that a step changes: parameters, momenta, AdamW's moments."""
        moments = [value for entry in self.adam.state.values() for value in entry.values() if isinstance(value, Tensor)]
        return [*(p.data for p in self.parameters), *self.muon.buffers.values(), *moments]

    def step(self, scale: float) -> None:
        # Muon's update does not grow with the gradient; the clip is for AdamW's parameters.
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        for group in self.adam.param_groups:
            group["lr"] = self.adam_rate * scale
        self.adam.step()
        self.muon.step(self.muon_rate * scale)
        for parameter in self.parameters:
            parameter.grad = None
