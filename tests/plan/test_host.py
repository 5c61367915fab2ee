"""Host memory of a replica."""

from __future__ import annotations

from vlfleet.plan.flags import Flags, Sizes
from vlfleet.plan.host import PROCESS_BYTES, WORKER_BYTES, host_memory
from vlfleet.plan.terms import GIB, MIB, total

SMALL = Sizes(8192, 256, 2048)


def test_one_gpu_one_api_server() -> None:
    found = host_memory(Flags(), SMALL)
    assert {term.name: term.bytes for term in found} == {
        "processor cache": 8 * GIB,
        "processes": 2 * PROCESS_BYTES,
        "pinned buffers": 256 * 8192 * 16,
    }
    assert total(found) == 8 * GIB + 2 * PROCESS_BYTES + 32 * MIB


def test_the_processor_cache_is_there_once_for_each_api_server_and_engine() -> None:
    """config/multimodal.py: mm_processor_cache_gb * (api_server_count + data_parallel_size)."""
    flags = Flags(mm_processor_cache_gb=2.5, api_server_count=4, data_parallel_size=2)
    caches = next(term for term in host_memory(flags, SMALL) if term.name == "processor cache")
    assert caches.bytes == 15 * GIB
    none = host_memory(Flags(mm_processor_cache_gb=0), SMALL)
    assert all(term.name != "processor cache" for term in none)


def test_ranks_have_processes_and_queues() -> None:
    found = host_memory(Flags(), SMALL, 2, 2)
    of = {term.name: term.bytes for term in found}
    assert of["processes"] == 2 * PROCESS_BYTES + 4 * WORKER_BYTES
    assert of["shared memory of queues"] == 5 * 160 * MIB
    assert of["pinned buffers"] == 4 * 256 * 8192 * 16


def test_runner_2_pins_two_gib_for_long_sequences() -> None:
    large = Sizes(128_000, 1024, 8192)
    two, one = (total(host_memory(Flags(), large, runner=runner)) for runner in (2, 1))
    assert two - one == 1024 * 128_000 * 16
