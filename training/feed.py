"""Batches from worker processes: drawn and packed in shared memory, copied to the GPU, and kept there to be seen again.

Drawing is slower than training, so each batch is shown a few times (with fresh noise, contrast and tint).
"""

from __future__ import annotations

import mmap
import multiprocessing
import multiprocessing.context
import queue
import random
import signal
import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training import chat, packing, tokenizer

Context = multiprocessing.context.ForkContext
LONG = ("visual_at", "targets")


def _work(number: int, seed: int, slots: list[mmap.mmap], free: Any, ready: Any, easy: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rng = random.Random(seed * 1000 + number)
    encoder = tokenizer.build()
    while True:
        slot = free.get()
        if slot is None:
            return
        simple = bool(easy.value)
        arrays = packing.views(memoryview(slots[slot]))
        packing.fill(arrays, lambda: packing.encode(encoder, chat.conversation(rng, easy=simple)))  # noqa: B023
        ready.put((slot, simple))


class Feed:
    """Endless batches on a device. Must be made before CUDA is first used: the workers are forked.

    `drawn` counts batches drawn, `shown` batches given out.
    """

    def __init__(self, workers: int, seed: int, keep: int) -> None:
        context: Context = multiprocessing.get_context("fork")
        self.slots = [mmap.mmap(-1, packing.BATCH_BYTES) for _ in range(workers + 6)]
        self.free, self.ready = context.SimpleQueue(), context.SimpleQueue()
        self.easy = context.Value("b", 1, lock=False)
        self.processes = [
            context.Process(target=_work, args=(n, seed, self.slots, self.free, self.ready, self.easy), daemon=True)
            for n in range(workers)
        ]
        for process in self.processes:
            process.start()
        for slot in range(len(self.slots)):
            self.free.put(slot)
        self.keep, self.rng = keep, random.Random(seed)
        self.kept: list[dict[str, Tensor]] = []
        self.fresh: queue.Queue[tuple[dict[str, Tensor], bool]] = queue.Queue(maxsize=3)
        self.drawn = self.shown = 0
        self.stopped = False

    def start(self, device: torch.device) -> None:
        self.device = device
        threading.Thread(target=self._copy, daemon=True).start()

    def _copy(self) -> None:
        cuda = self.device.type == "cuda"
        stream = torch.cuda.Stream() if cuda else None  # type: ignore[no-untyped-call, unused-ignore]
        pinned = torch.empty(packing.BATCH_BYTES, dtype=torch.uint8, pin_memory=cuda)
        staged = packing.views(pinned.numpy().data)
        while not self.stopped:
            slot, simple = self.ready.get()
            pinned.numpy()[:] = np.frombuffer(self.slots[slot], dtype=np.uint8)
            self.free.put(slot)
            if stream is not None:
                with torch.cuda.stream(stream):
                    batch = {
                        name: torch.from_numpy(array).to(self.device, non_blocking=True)
                        for name, array in staged.items()
                    }
                    batch.update({name: batch[name].long() for name in LONG})
                stream.synchronize()
                for tensor in batch.values():
                    # Otherwise the memory of a dropped batch is filled anew while the last step still reads it.
                    tensor.record_stream(torch.cuda.default_stream())
            else:
                batch = {name: torch.from_numpy(array.copy()) for name, array in staged.items()}
                batch.update({name: batch[name].long() for name in LONG})
            self.fresh.put((batch, simple))

    def harden(self) -> None:
        """Go from easy pictures to the full mix."""
        self.easy.value = 0
        self.kept.clear()

    def next(self) -> dict[str, Tensor]:
        """Return a fresh batch if one is ready (or nothing is kept yet), else one shown before."""
        self.shown += 1
        while True:
            try:
                batch, simple = self.fresh.get(block=len(self.kept) < 8)
            except queue.Empty:
                return self.rng.choice(self.kept)
            if simple and not self.easy.value:
                continue
            self.drawn += 1
            if len(self.kept) < self.keep:
                self.kept.append(batch)
            else:
                self.kept[self.rng.randrange(self.keep)] = batch
            return batch

    def stop(self) -> None:
        self.stopped = True
        for process in self.processes:
            process.terminate()
        self.kept.clear()
