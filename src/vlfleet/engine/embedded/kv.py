"""The key-value cache of a running batch: one row a sequence, each with its own length."""

from __future__ import annotations

import torch

LENGTH_STEP = 256
ROW_STEP = 4
"""Room is allocated in steps, so that a growing answer or batch moves the cache rarely."""


class BatchCache:
    """Keys and values of all layers for the sequences that are being decoded.

    Rows 0 to `len(lengths)` - 1 are in use and stay gapless: `remove` moves the last row into the gap. It stands in
    for transformers' `Cache` in a forward pass, where a layer only calls `update`. A layer's tensors live where its
    keys do, so a model spread over several devices needs nothing more.
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self._keys: dict[int, torch.Tensor] = {}
        """By layer: (rows, num_key_value_heads, length, head_dim)."""
        self._values: dict[int, torch.Tensor] = {}
        self._shape = (ROW_STEP, LENGTH_STEP)
        """Rows and length to allocate next."""
        self._row: int | None = None
        self._places: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

    def begin_prefill(self, tokens: int) -> None:
        """The next forward pass fills a new last row with `tokens` tokens."""
        self._row = len(self.lengths)
        self._reserve(self._row + 1, max([tokens, *self.lengths]))
        self.lengths.append(tokens)

    def begin_decode(self) -> None:
        """The next forward pass appends one token to every row."""
        self._row = None
        self._places = {}
        self._reserve(len(self.lengths), max(self.lengths) + 1)
        self.lengths = [length + 1 for length in self.lengths]

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the keys and values of one layer, (rows, heads, tokens, head_dim), and return those to attend to."""
        if layer not in self._keys:
            self._keys[layer] = self._allocate(key)
            self._values[layer] = self._allocate(value)
        keys, values = self._keys[layer], self._values[layer]
        if self._row is not None:
            keys[self._row, :, : key.shape[2]] = key[0]
            values[self._row, :, : key.shape[2]] = value[0]
            return key, value
        rows, end = len(self.lengths), max(self.lengths)
        index, at = self._places_on(key.device)
        keys[index, :, at] = key[:, :, 0]
        values[index, :, at] = value[:, :, 0]
        return keys[:rows, :, :end], values[:rows, :, :end]

    def _places_on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and column of each new token; sent to a device once a step, not once a layer."""
        if device not in self._places:
            ends = torch.tensor([length - 1 for length in self.lengths], device=device)
            self._places[device] = (torch.arange(len(self.lengths), device=device), ends)
        return self._places[device]

    def clear(self, row: int) -> None:
        """Forget what `row` holds: NaN there would reach the next sequence in it, for 0 x NaN is NaN."""
        for tensors in (self._keys, self._values):
            for tensor in tensors.values():
                tensor[row] = 0

    def remove(self, row: int) -> None:
        """Free `row`; the last row takes its place."""
        last = len(self.lengths) - 1
        if row != last:
            length = self.lengths[last]
            for tensors in (self._keys, self._values):
                for tensor in tensors.values():
                    tensor[row, :, :length] = tensor[last, :, :length]
            self.lengths[row] = length
        self.lengths.pop()

    def mask(self, device: torch.device) -> torch.Tensor:
        """(rows, longest length), bool: which tokens exist, after `begin_decode`."""
        lengths = torch.tensor(self.lengths, device=device)
        return torch.arange(max(self.lengths), device=device)[None] < lengths[:, None]

    def _reserve(self, rows: int, length: int) -> None:
        """Make room for what is needed now; what an earlier, larger batch took is given back on the way."""
        # one long answer alone must not take the room of four
        self._shape = (rows if rows < 3 else _round_up(rows, ROW_STEP), _round_up(length, LENGTH_STEP))
        in_use = len(self.lengths)
        for tensors in (self._keys, self._values):
            for layer, tensor in tensors.items():
                if tensor.shape[0] < rows or tensor.shape[2] < length:
                    tensors[layer] = self._allocate(tensor)
                    kept = min(tensor.shape[2], self._shape[1])
                    tensors[layer][:in_use, :, :kept] = tensor[:in_use, :, :kept]

    def _allocate(self, like: torch.Tensor) -> torch.Tensor:
        rows, length = self._shape
        return like.new_zeros((rows, like.shape[1], length, like.shape[3]))


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
