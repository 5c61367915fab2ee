"""Run by vLLM's own Python: what its caches say to scenarios read from stdin, as JSON on stdout.

A scenario: {"processor": [capacity_bytes, [[[key, bytes], ...], ...]], "encoder": [capacity, [["hold"|"free", request,
key, tokens], ...]], "prefix": [blocks, [["start", request, [token, ...], [[key, offset, length], ...], salt] |
["end", request], ...]]}. The answers: found items a request; found a hold; found tokens a start.
"""

import json
import sys
from types import SimpleNamespace
from typing import Any

BLOCK = 16


def processor(capacity: int, requests: list[Any]) -> list[int]:
    """As `_merge_mm_kwargs` and `MultiModalProcessorOnlyCache` use vLLM's LRUCache."""
    from vllm.multimodal.cache import MultiModalProcessorOnlyCache
    from vllm.utils.cache import LRUCache

    cache: Any = MultiModalProcessorOnlyCache.__new__(MultiModalProcessorOnlyCache)
    cache._cache = LRUCache(capacity, getsizeof=lambda item: item.item)
    found = []
    for items in requests:
        found.append(sum(cache.is_cached([key for key, _ in items])))
        for key, _ in items:
            cache.touch_sender_cache_item(key)
        for key, size in items:
            entry = cache._cache.get(key)
            if entry is None:
                cache._cache.put_if_fits(key, SimpleNamespace(item=size, prompt_updates=[]))
    return found


def encoder(capacity: int, events: list[Any]) -> list[bool]:
    from vllm.v1.core.encoder_cache_manager import EncoderCacheManager

    manager, found = EncoderCacheManager(capacity), []
    requests: dict[int, Any] = {}
    for what, number, key, tokens in events:
        if what == "free":
            manager.free(requests.pop(number))
            continue
        feature = SimpleNamespace(identifier=key)
        request: Any = SimpleNamespace(
            request_id=str(number), mm_features=[feature], get_num_encoder_embeds=lambda _, size=tokens: size
        )
        requests[number] = request
        found.append(manager.check_and_update_cache(request, 0))
        if not found[-1]:
            assert manager.can_allocate(request, 0, 10**9, 0)
            manager.allocate(request, 0)
    return found


def prefix(blocks: int, events: list[Any]) -> list[int]:
    import torch
    from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange
    from vllm.sampling_params import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_manager import KVCacheManager
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.request import Request

    init_none_hash(sha256)
    hasher = get_request_block_hasher(BLOCK, sha256)
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
    config = KVCacheConfig(blocks + 1, [], [KVCacheGroupSpec(["layer"], spec)])
    manager = KVCacheManager(config, max_model_len=4096, scheduler_block_size=BLOCK, hash_block_size=BLOCK)
    sampling = SamplingParams(max_tokens=8)
    sampling.update_from_generation_config({}, 2)
    running: dict[int, Any] = {}
    found = []
    for event in events:
        if event[0] == "end":
            manager.free(running.pop(event[1]))
            continue
        _, number, tokens, media, salt = event
        features = [
            MultiModalFeatureSpec(None, "image", key, PlaceholderRange(offset=offset, length=length), key)
            for key, offset, length in media
        ]
        request = Request(
            str(number), tokens, sampling, None, mm_features=features or None, cache_salt=salt, block_hasher=hasher
        )
        there, count, _ = manager.get_computed_blocks(request)
        found.append(count)
        assert manager.allocate_slots(request, len(tokens) - count, count, there) is not None
        running[number] = request
    return found


def main() -> None:
    answers = [
        {
            "processor": processor(*scenario["processor"]),
            "encoder": encoder(*scenario["encoder"]),
            "prefix": prefix(*scenario["prefix"]),
        }
        for scenario in json.load(sys.stdin)
    ]
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
