"""For every rule lines that look like its sign and are not: of another cause, a healthy log, or prose."""

from __future__ import annotations

NEAR_MISSES: dict[str, tuple[str, ...]] = {
    "attention-heads-indivisible": (
        "INFO 11-21 02:09:44 [model.py:623] Total number of attention heads (28) must be divisible by tensor"
        " parallel size (4).",
        "ValueError: Total number of hidden layers (28) must be divisible by pipeline parallel size (8).",
    ),
    "vocabulary-indivisible": ("AssertionError: 151936 is not divisible by 3",),
    "vision-heads-indivisible": (
        '  File "vllm/model_executor/models/qwen2.py", line 123, in __init__\n'
        "    self.attn = Attention(self.num_heads,\nAssertionError: 16 is not divisible by 3",
    ),
    "vision-mlp-indivisible": (
        '  File "vllm/model_executor/models/qwen2.py", line 82, in __init__\n    self.mlp = Qwen2MLP(\nAssertionError',
        "AssertionError: 18944 is not divisible by 3",
    ),
    "size-indivisible": ("AssertionError: attn_chunk_size 100 is not divisible by block_size 16",),
    "quantised-shape-misaligned": (
        "(Worker_TP0 pid=1) WARNING 11-21 02:36:07 [auto_awq.py:300] Layer 'model.layers.0.mlp.down_proj' is not"
        " supported by AutoAWQMarlin. Falling back to unoptimized AWQ kernels.",
    ),
    "marlin-tile-misaligned": (
        "ValueError: Weight input_size_per_partition = 1216 is not divisible by weight quantization block_k = 128.",
        "RuntimeError: prob_m = 59136 is not divisible by thread_m = 512",
    ),
    "quantisation-group-straddles-ranks": (
        "ExllamaLinearKernel cannot implement due to: Group size (32) does not evenly divide the number of input"
        " features (4304)",
    ),
    "quantised-kernel-missing": (
        "INFO 08-29 09:19:41 [gptq_marlin.py:266] Using MarlinLinearKernel for GPTQMarlinLinearMethod",
    ),
    "marlin-group-size": ("ValueError: Marlin does not support weight_bits = uint4b8. Only types = [] are supported",),
    "fp8-block-straddles-experts": (
        "ValueError: Weight output_partition_size = 64 is not divisible by weight quantization block_n = 128.",
    ),
    "fp8-block-straddles-ranks": (
        "ValueError: The output_size of gate's and up's weight = 192 is not divisible by weight quantization block_n"
        " = 128.",
    ),
    "moe-kernel-block": (
        "RuntimeError: K must be divisible by blockK",
        "BLOCK_SIZE_K // group_size must be one of [1, 2, 4, 8]",
    ),
    "pipeline-parallelism-unsupported": ("ValueError: HiSparse does not support pipeline parallelism.",),
    "more-ranks-than-gpus": (
        "(EngineCore pid=1) INFO 11-21 07:09:39 [parallel_state.py:1906] world_size=2 rank=0 local_rank=0 backend=nccl",
    ),
    "custom-all-reduce-off": (
        "INFO 11-21 02:36:07 [custom_all_reduce.py:192] Custom allreduce is disabled because of missing custom"
        " allreduce library",
        "Custom allreduce is disabled due to an unsupported world size: 3.",
    ),
    "cpu-ranks-need-threads": (
        "[W1121 07:09:39.503947169 utils.cpp:68] Warning: NUMA binding: Using MEMBIND policy for memory allocation on"
        " the NUMA nodes (0).",
    ),
    "cpu-pipeline-needs-compilation": ("AssertionError", "AssertionError: tensors are not intermediate"),
    "adapter-not-merged": ("ValueError: There is no module or parameter named '_orig_mod' in Qwen2ForCausalLM",),
    "weight-names-foreign": (
        "ValueError: Following weights were not initialized from checkpoint: {'lm_head.weight'}",
        "AttributeError: module 'vllm' has no attribute 'base_model'",
    ),
    "weight-names-moved": (
        "KeyError: 'chatcmpl-ac655124b529bf39-ba0ea503'",
        "(APIServer pid=1) INFO 11-21 02:00:00 [x.py:1] vLLM API server version 0.11.0\nKeyError:"
        " 'visual.patch_embed.proj.weight'",
    ),
    "weights-missing": (
        "(EngineCore pid=1) INFO 11-21 07:09:39 [default_loader.py:501] Loading weights took 0.03 seconds",
    ),
    "weights-truncated": ("OSError: Error while reading header of request",),
    "model-folder-missing": (
        "Repo card metadata block was not found. Setting CardData to empty.",
        "OSError: [Errno 2] No such file or directory: '/models/demo/x.jinja'",
    ),
    "architecture-unknown": (
        "INFO 11-21 02:09:44 [model.py:623] Resolved architecture: Qwen2_5_VLForConditionalGeneration",
        "ValueError: Model architectures ['Qwen2_5_VLForConditionalGeneration'] failed to be inspected.",
    ),
    "model-type-unknown": ("KeyError: 'qwen_default'", "KeyError: 'model_type'"),
    "rope-scaling-without-factor": (
        '  File "vllm/config.py", line 1, in f\n    assert rope_scaling is not None\nAssertionError',
        "KeyError: 'factors'",
    ),
    "mrope-section-missing": (
        "WARNING 11-21 02:00:00 [config.py:603] Replacing legacy rope_type 'mrope' with 'default'",
    ),
    "tokenizer-class-of-transformers-5": (
        "ValueError: Tokenizer class BaichuanTokenizer does not exist or is not currently imported.",
    ),
    "image-processor-renamed": (
        "ImportError: cannot import name 'Qwen2VLImageProcessorFast' from 'transformers'",
        "INFO 02-18 11:08:11 api_server.py:840] vLLM API server version 0.9.0\n"
        "ImportError: cannot import name 'Qwen2_5_VLImageProcessor' from 'transformers.models.qwen2_5_vl'",
    ),
    "torchvision-unfit": ("RuntimeError: operator torchvision::roi_align does not exist",),
    "torchvision-missing": ("AutoImageProcessor requires the PIL library but it was not found in your environment.",),
    "model-class-not-inspected": (
        "ValueError: Model architectures ['X'] are not supported for now. Supported: dict_keys([])",
    ),
    "processor-size-keys": ("KeyError: 'longest_side'", "ValueError: size must contain 'height' and 'width' keys."),
    "processor-files-missing": (
        "OSError: Can't load the configuration of '/models/demo'.",
        "/models/demo does not appear to have a file named generation_config.json.",
    ),
    "processor-truncates": (
        "ValueError: Mismatch between the number of images and the number of image tokens",
        "Token indices sequence length is longer than the specified maximum sequence length for this model (9000 >"
        " 8192)",
    ),
    "processor-option-ignored": (
        "[transformers] Keyword argument `use_fast` is deprecated and will be ignored",
        "The following generation flags are not valid and may be ignored: ['temperature'].",
    ),
    "processor-option-deprecated": (
        "[transformers] The `use_fast` parameter is deprecated and will be removed in a future version.",
    ),
    "slow-image-processor": (
        "[transformers] The `use_fast` parameter is deprecated and will be removed in a future version.",
    ),
    "max-model-len-beyond-checkpoint": (
        "(APIServer pid=1) INFO 11-21 02:09:44 [model.py:1788] Using max model len 8192",
        "ValueError: User-specified max_model_len (0) must be positive",
    ),
    "rope-scaling-flag-gone": ("vllm: error: unrecognized arguments: --rope-theta 1000000",),
    "flag-unknown": ("vllm serve: error: argument --dtype: invalid choice: 'x'", "unrecognized arguments are ignored"),
    "media-limit-not-json": (
        "vllm serve: error: argument --hf-overrides: Value x cannot be converted to <function loads at"
        " 0x7f2e48935440>.",
    ),
    "flag-value-wrong": (
        "vllm: error: unrecognized arguments: --max-model-length 2048",
        "foo.c:12: error: argument x: bad",
    ),
    "option-out-of-range": ("  Input should be considered carefully before it is sent",),
    "quantisation-name-unknown": ("INFO 11-21 02:00:00 [x.py:1] quantization method: fp8",),
    "quantisation-dtype": (
        "ValueError: The quantization method awq is not supported for the current GPU. Minimum capability: 75. Current"
        " capability: 70.",
    ),
    "kv-cache-too-small-for-length": (
        "(EngineCore pid=1) INFO 11-21 02:09:44 [kv_cache_utils.py:2327] GPU KV cache size: 8,192 tokens, Maximum"
        " concurrency for 2,048 tokens per request: 4.00x",
        "(EngineCore pid=1) WARNING 11-21 02:09:44 [x.py:1] To serve at least one request with the model's max seq len"
        " (4096), max_model_len was lowered",
    ),
    "no-memory-for-kv-cache": (
        "(EngineCore pid=1) INFO 12-23 23:34:23 [gpu_worker.py:298] Available KV cache memory: 4.28 GiB",
    ),
    "gpu-memory-taken": (
        "(EngineCore pid=1) INFO 11-21 02:09:44 [gpu_worker.py:1012] Free memory on device (22.76/24.0 GiB) on"
        " startup. Desired GPU memory utilization is (0.9, 21.6 GiB). Actual usage is 15.67 GiB for consumed memory",
    ),
    "cpu-memory-taken": (
        "(EngineCore pid=1) INFO 11-21 07:09:40 [cpu_worker.py:243] Auto set (12.18/23.54) GiB for KV cache on node 0,"
        " with 12.95 GiB requested memory for the worker. 0.77 GiB memory was consumed by non-kv usages.",
        "ValueError: Free memory on device (31.44/47.38 GiB) on startup is less than desired GPU memory utilization",
    ),
    "cpu-memory-share-used-up": (
        "ValueError: Available memory on node 0 (20.9/23.54 GiB) on kv cache allocation is less than requested memory"
        " for kv (900.0 GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used",
    ),
    "cpu-kv-cache-too-large": (
        "(EngineCore pid=1) INFO 11-21 07:09:40 [cpu_worker.py:260] Explicitly set (0.06/23.54) GiB for KV cache on"
        " node 0.",
    ),
    "profile-shorter-than-media": (
        "(EngineCore pid=1) INFO 11-21 02:09:44 [encoder_runner.py:131] Encoder cache will be initialized with a"
        " budget of 16384 tokens, and profiled with 1 image items of the maximum feature size.",
    ),
    "out-of-memory-sampler": ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.74 GiB.",),
    "image-processing-on-gpu-0": (
        "sglang\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.69 GiB. GPU 3 has a total capacity of"
        " 31.74 GiB of which 3.56 GiB is free. Process 1865364 has 28.17 GiB memory in use.",
    ),
    "out-of-memory-lmdeploy": ("lmdeploy serve api_server x\nRuntimeError: [TM][ERROR]  Assertion fail",),
    "out-of-memory-235b": (
        "Qwen3-VL-30B-A3B\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.74 GiB.",
    ),
    "out-of-memory-profiling": (
        "(EngineCore pid=1) INFO 11-21 02:09:44 [x.py:1] Memory profiling takes 4.26 seconds",
        '  File "x.py", line 1, in forward\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.74 GiB.',
    ),
    "out-of-memory-capturing-graphs": (
        "INFO 03-27 10:29:03 [model_runner.py:1442] Capturing cudagraphs for decoding. If out-of-memory error occurs"
        " during cudagraph capture, consider decreasing `gpu_memory_utilization` or switching to eager mode.",
    ),
    "out-of-memory-loading": (
        '  File "x.py", line 1, in profile_run\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.74'
        " GiB.",
    ),
    "out-of-memory-serving": (
        '  File "vllm/x.py", line 1, in load_model\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate'
        " 1.74 GiB.",
    ),
    "out-of-memory-vision-attention": (
        '  File "transformers/models/qwen2_5_vl/modeling_qwen2_5_vl.py", line 1, in forward\n    x = self.mlp(x)\n'
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.74 GiB.",
    ),
    "out-of-memory-device-map": (
        'device_map="cuda"\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.74 GiB.',
    ),
    "out-of-memory": (
        "(EngineCore pid=1) INFO 11-21 02:09:44 [x.py:1] To avoid CUDA out of memory, lower gpu_memory_utilization",
        "MemoryError: Unable to allocate 4.00 GiB for an array",
    ),
    "bfloat16-unsupported": (
        "WARNING 02-25 22:11:50 config.py:2386] Casting torch.bfloat16 to torch.float16.",
        "INFO 11-21 02:00:00 [x.py:1] Bfloat16 is only supported on GPUs with compute capability of at least 8.0.",
    ),
    "quantisation-needs-newer-gpu": (
        "ValueError: Unknown quantization method: int3. Must be one of ['awq']",
        "INFO 06-29 01:42:52 [x.py:1] The quantization method awq is supported for the current GPU.",
    ),
    "no-kernel-for-this-gpu": ("RuntimeError: CUDA error: an illegal memory access was encountered",),
    "driver-too-old": ("RuntimeError: Found no NVIDIA driver on your system.",),
    "driver-mismatch": ("RuntimeError: CUDA error: unknown error",),
    "no-gpu-visible": ("INFO 06-29 01:42:52 [__init__.py:216] Automatically detected platform cuda.",),
    "nan-in-fp16": ("RuntimeError: probability tensor contains either `inf`, `nan` or element < 0",),
    "nan-across-gpus": (
        "WARNING 11-21 07:36:28 [sampling_params.py:558] temperature 1e-06 is less than 0.01, which may cause"
        " numerical errors nan or inf in tensors.",
    ),
    "tensors-on-two-devices": ("RuntimeError: Expected all tensors to be of the same dtype",),
    "cuda-error": ("INFO 11-21 02:00:00 [x.py:1] CUDA error: none seen", "torch.AcceleratorError"),
    "explained-by-the-engine": (
        "ERROR:    Exception in ASGI application",
        "ERROR: pip's dependency resolver does not take this",
    ),
    "port-in-use": (
        "(APIServer pid=1) WARNING 11-21 02:00:00 [parallel.py:746] Address already in use. Retrying with a new port.",
        "OSError: [Errno 24] Too many open files",
    ),
    "nccl-timeout": (
        "[rank0]:[W1121 02:00:00.1 ProcessGroupNCCL.cpp:1496] Warning: WARNING: destroy_process_group() was not called"
        " before program exit, which can leak resources.",
    ),
    "cuda-before-fork": (
        "WARNING 06-17 00:26:46 [utils.py:2597] We must use the `spawn` multiprocessing start method. Overriding"
        " VLLM_WORKER_MULTIPROC_METHOD to 'spawn'. Reason: CUDA is initialized",
    ),
    "shared-memory-too-small": (
        "resource_tracker: There appear to be 1 leaked shared_memory objects to clean up at shutdown",
        "(EngineCore pid=1) INFO 11-04 18:54:33 [shm_broadcast.py:466] No available shared memory broadcast block"
        " found in 60 seconds.",
    ),
    "nccl-system-error": ("ncclUnhandledCudaError: Call to CUDA function failed.", "NCCL INFO Using network Socket"),
    "worker-killed": (
        "ERROR 05-21 09:27:46 [multiproc_executor.py:123] Worker proc VllmWorker-6 died unexpectedly, shutting down"
        " executor.",
        "Worker proc VllmWorker-6 died unexpectedly (exit code: 1), shutting down executor.",
    ),
    "engine-core-killed": (
        "(EngineCore pid=1) INFO 11-21 07:27:03 [core.py:1499] [shutdown] EngineCore: exiting busy loop",
    ),
    "engine-start-timeout": (
        "(EngineCore_DP0 pid=1) INFO 10-23 07:59:18 [core.py:644] Waiting for init message from front-end.",
    ),
    "rank-silent": (
        "(EngineCore_DP0 pid=1) INFO 11-04 18:54:33 [shm_broadcast.py:466] No available shared memory broadcast block"
        " found in 60 seconds. This typically happens when some processes are hanging or doing some time-consuming"
        " work (e.g. compilation).",
    ),
    "engine-died": (
        "(APIServer pid=1) INFO 11-21 02:21:56 [core_client.py:655] [shutdown] MPClient: start timeout=0s",
        "(APIServer pid=1) INFO 11-21 02:21:56 [x.py:1] non-default args: {}\n"
        "(APIServer pid=1) INFO 11-21 02:21:56 [launcher.py:100] [shutdown] API server: shutdown triggered\n"
        "(APIServer pid=1) ERROR 11-21 02:21:56 [async_llm.py:906] AsyncLLM output_handler failed.",
    ),
    "too-many-media": ("At most 4 choices may be provided in one request.", "limit_mm_per_prompt={'image': 4}"),
    "prompt-too-long": (
        "(APIServer pid=1) INFO 11-21 02:09:44 [model.py:1788] Using max model len 8192",
        "The maximum context length is 8192 tokens.",
    ),
    "image-larger-than-encoder-cache": (
        "Encoder cache will be initialized with a budget of 16384 tokens, and profiled with 1 image items",
    ),
    "placeholder-in-text": ("ValueError: Attempted to assign 3 audio tokens to 4 placeholders",),
    "image-tokens-mismatch": (
        "ValueError: Number of images does not match number of special image tokens in the input text.",
    ),
    "media-not-held": ("Cache miss for image at index 0", "Prefix cache hit rate: 0.0%, MM cache hit rate: 80.0%"),
    "chat-template-missing": (
        "(APIServer pid=1) INFO 11-21 07:09:41 [hf.py:648] Detected the chat template content format to be 'openai'.",
    ),
    "tokenizer-without-image-token": ("KeyError: '<|video|>'",),
    "only-exclamation-marks": ("It works!!!", "Use --limit-mm-per-prompt!"),
    "start-takes-minutes": ("The engine starts in 20 s and profiling is quick.", "The startup log is attached."),
    "gpu-idle-cpu-busy": ("I have one GPU and a CPU with 64 cores.", "GPU utilization is 98 % and the CPU is idle."),
    "second-image-box-wrong": ("The second image is larger than the first one.",),
    "boxes-shifted": ("How do I ask for bounding boxes?", "The box is right on every image."),
    "answer-repeats": ("Please repeat the question.", "=" * 200, "ab" * 20),
    "json-schema-ignored": ("How do I use response_format with a json_schema?",),
    "video-never-answers": ("Which video formats can be sent?", "A video of a cat that climbs."),
    "jpeg-larger-than-png": ("Is jpeg or png better for receipts?",),
    "engines-answer-differently": ("Can I use transformers instead of vLLM?", "vLLM is quicker than transformers."),
}
