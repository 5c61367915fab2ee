"""What the width of Qwen2.5-VL's vision MLP costs on a GPU: its GEMMs alone, and a whole vLLM.

    python -m benchmarks.vision_width gemm
    python -m benchmarks.vision_width engine MODEL WIDTH

The 3B and 7B have 3,420, which is no multiple of 8 (the 32B and 72B: 3,456), and cuBLAS is slow where the inner size of
a GEMM is none. `engine` runs a copy of the folder MODEL (shapes and tokenizer, no weights) with another width, over 160
pictures that are processed but whose vision outputs are not kept. Needs a GPU; run it with vLLM's Python.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WIDTHS = (3420, 3424, 3456)
HIDDEN = 1280
PATCHES = 5476
"""Of a picture of 1036 x 1036."""
RUNS = 30
PICTURES, SIDE = 160, 1024
"""More than the encoder cache holds (65,536 tokens, 48 pictures)."""
PROMPT = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe.<|im_end|>\n<|im_start|>assistant\n"


def gemms() -> None:
    """Prints microseconds and TFLOP/s of the down and the fused gate and up projection, by width and pictures."""
    import torch

    for pictures in (1, 4, 16):
        for width in WIDTHS:
            rows = pictures * PATCHES
            found: dict[str, Any] = {"pictures": pictures, "width": width}
            for name, inner, outer in (("down", width, HIDDEN), ("gate_up", HIDDEN, 2 * width)):
                x = torch.randn(rows, inner, device="cuda", dtype=torch.bfloat16)
                weight = torch.randn(outer, inner, device="cuda", dtype=torch.bfloat16)
                bias = torch.zeros(outer, device="cuda", dtype=torch.bfloat16)
                for run in range(RUNS + 5):
                    if run == 5:
                        torch.cuda.synchronize()
                        began = time.perf_counter()
                    torch.nn.functional.linear(x, weight, bias)
                torch.cuda.synchronize()
                seconds = (time.perf_counter() - began) / RUNS
                found[f"{name}_us"] = round(seconds * 1e6, 1)
                found[f"{name}_tflops"] = round(2 * rows * inner * outer / seconds / 1e12, 1)
            print(json.dumps(found), flush=True)


def engine(model: Path, width: int) -> None:
    """Prints pictures a second with answers of 1 and 64 tokens; the first run of each warms up."""
    import numpy as np
    from PIL import Image
    from vllm import LLM, SamplingParams

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model"
        shutil.copytree(model, copy)
        config = json.loads((copy / "config.json").read_text())
        config["vision_config"]["intermediate_size"] = width
        (copy / "config.json").write_text(json.dumps(config))
        llm = LLM(
            str(copy),
            load_format="dummy",
            max_model_len=8192,
            limit_mm_per_prompt={"image": 1, "video": 0},
            mm_processor_kwargs={"max_pixels": 1003520},
            max_num_batched_tokens=65536,
            gpu_memory_utilization=0.8,
            enable_prefix_caching=False,
            mm_processor_cache_gb=12,
            compilation_config={"compile_mm_encoder": True},
        )
        draw = np.random.default_rng(0)
        asked = [
            {
                "prompt": PROMPT,
                "multi_modal_data": {"image": Image.fromarray(draw.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))},
                "multi_modal_uuids": {"image": f"picture {number}"},
            }
            for number in range(PICTURES)
        ]
        for tokens in (1, 1, 1, 64, 64):
            began = time.perf_counter()
            llm.generate(asked, SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=0), use_tqdm=False)
            rate = PICTURES / (time.perf_counter() - began)
            print(json.dumps({"width": width, "tokens": tokens, "pictures_per_s": round(rate, 2)}), flush=True)


def main() -> None:
    match sys.argv[1:]:
        case ["gemm"]:
            gemms()
        case ["engine", model, width]:
            engine(Path(model), int(width))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
