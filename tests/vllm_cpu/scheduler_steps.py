"""Run by vLLM's own Python: the steps that its scheduler decides for scenarios read from stdin, as JSON on stdout.

A scenario: {"limits": [max_num_batched_tokens, max_num_seqs, encoder_tokens, kv_blocks], "requests": [{"images":
[[number, tokens], ...], "text": ..., "output": ...}, ...]}. A step: [prompt tokens, decodes, pictures, finished].
"""

import json
import sys
from typing import Any

LEAD, BLOCK = 4, 16


def main() -> None:
    import torch
    from vllm.engine.arg_utils import EngineArgs
    from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange
    from vllm.sampling_params import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.encoder_cache_manager import EncoderCacheManager
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.request import Request
    from vllm.v1.structured_output import StructuredOutputManager

    config = EngineArgs(
        model=sys.argv[1], max_model_len=2048, enforce_eager=True, block_size=BLOCK, async_scheduling=False
    ).create_engine_config()
    init_none_hash(sha256)
    hasher = get_request_block_hasher(BLOCK, sha256)

    def scheduler_of(tokens: int, seqs: int, encoder: int, blocks: int) -> Any:
        config.scheduler_config.max_num_batched_tokens = tokens
        config.scheduler_config.max_num_scheduled_tokens = None
        config.scheduler_config.max_num_seqs = seqs
        config.cache_config.num_gpu_blocks = blocks + 1  # one is never used
        spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
        cache = KVCacheConfig(blocks + 1, [], [KVCacheGroupSpec(["layer"], spec)])
        scheduler = Scheduler(config, cache, StructuredOutputManager(config), BLOCK, log_stats=False)
        scheduler.max_num_encoder_input_tokens = encoder
        scheduler.encoder_cache_manager = EncoderCacheManager(encoder)
        return scheduler

    def request_of(number: int, wanted: dict[str, Any]) -> Any:
        tokens, features = [7] * min(LEAD, wanted["text"]), []
        for image, size in wanted["images"]:
            place = PlaceholderRange(offset=len(tokens), length=size)
            features.append(MultiModalFeatureSpec(None, "image", f"image {image}", place, f"image {image}"))
            tokens += [8] * size
        tokens += [1000 + number] * max(0, wanted["text"] - LEAD)
        sampling = SamplingParams(max_tokens=wanted["output"], ignore_eos=True, temperature=0)
        sampling.update_from_generation_config({}, 2)
        return Request(
            f"{number}", tokens, sampling, None, mm_features=features or None, block_hasher=hasher, arrival_time=number
        )

    answers = []
    for scenario in json.load(sys.stdin):
        scheduler = scheduler_of(*scenario["limits"])
        for number, wanted in enumerate(scenario["requests"]):
            scheduler.add_request(request_of(number, wanted))
        steps: list[list[Any]] = []
        while scheduler.has_unfinished_requests() and len(steps) < 5000:
            before = {name: request.num_computed_tokens for name, request in scheduler.requests.items()}
            output = scheduler.schedule()
            names = list(output.num_scheduled_tokens)
            prompt = decodes = 0
            for name, count in output.num_scheduled_tokens.items():
                request = scheduler.requests[name]
                if before[name] >= request.num_prompt_tokens:
                    decodes += count
                else:
                    prompt += count
            pictures = sorted(
                int(scheduler.requests[name].mm_features[index].identifier.split()[1])
                for name, inputs in output.scheduled_encoder_inputs.items()
                for index in inputs
            )
            sampled = []
            for name in names:
                request = scheduler.requests[name]
                whole = request.num_computed_tokens >= request.num_tokens
                sampled.append([5000 + int(name)] if whole else [])
            scheduler.update_from_output(
                output, ModelRunnerOutput(names, {name: at for at, name in enumerate(names)}, sampled)
            )
            ended = sorted(int(name) for name in names if name not in scheduler.requests)
            steps.append([prompt, decodes, pictures, ended])
        answers.append(steps)
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
