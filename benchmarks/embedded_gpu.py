"""The embedded engine on a GPU with a real model's shape: does it load, answer like `generate`, and how fast.

    python -m benchmarks.embedded_gpu [--shape 3b|7b] [--device-map auto] [--attn-implementation sdpa]

The weights are random (speed and memory are the real model's, answers are noise), written to a scratch folder with the
demo model's tokenizer. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import torch
import transformers
from PIL import Image

DEMO = Path(__file__).parents[1] / "src" / "vlfleet" / "demo" / "model"
PORT = 8790
# The hub's config.json of Qwen2.5-VL-3B-Instruct and -7B-Instruct: hidden, intermediate, layers, heads, kv, vocab, tied
SHAPES = {"3b": (2048, 11008, 36, 16, 2, 151936, True), "7b": (3584, 18944, 28, 28, 4, 152064, False)}
QUESTION = "What is in the picture?"


def write_checkpoint(shape: str, folder: Path) -> None:
    """A checkpoint of random weights in bfloat16; special tokens are the demo tokenizer's."""
    hidden, intermediate, layers, heads, kv_heads, vocab, tied = SHAPES[shape]
    config: dict[str, Any] = json.loads((DEMO / "config.json").read_text())
    config |= {
        "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocab,
        "tie_word_embeddings": tied, "max_window_layers": layers, "max_position_embeddings": 32768,
        "rope_theta": 1e6, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    }  # fmt: skip
    config["vision_config"] |= {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": hidden,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }  # fmt: skip
    folder.mkdir(parents=True)
    for file in DEMO.iterdir():
        if file.suffix != ".safetensors" and "index" not in file.name:
            shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps(config))
    processor = json.loads((DEMO / "preprocessor_config.json").read_text())
    limits = {"min_pixels": 3136, "max_pixels": 1003520, "size": {"shortest_edge": 3136, "longest_edge": 1003520}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor | limits))
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = transformers.Qwen2_5_VLForConditionalGeneration(transformers.AutoConfig.from_pretrained(folder))
    torch.set_default_dtype(torch.float32)
    known = len(transformers.AutoTokenizer.from_pretrained(folder))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lm_head" in name or "embed_tokens" in name:
                parameter.normal_(std=0.5)  # the usual 0.02 makes such a model repeat one token
                parameter[known:] = 0  # logits of 0 never win, so that every token drawn is one that can be read
    model.save_pretrained(folder, max_shard_size="5GB")
    (folder / "config.json").write_text(json.dumps(config))
    del model
    torch.cuda.empty_cache()


def picture(rng: random.Random, side: int = 1000) -> bytes:
    blocks = Image.frombytes("RGB", (25, 25), rng.randbytes(25 * 25 * 3)).resize((side, side))
    encoded = io.BytesIO()
    blocks.save(encoded, "PNG")
    return encoded.getvalue()


def content(encoded: bytes, text: str) -> list[dict[str, Any]]:
    url = "data:image/png;base64," + base64.b64encode(encoded).decode()
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]


async def ask(session: aiohttp.ClientSession, parts: list[dict[str, Any]], tokens: int) -> tuple[float, float, str]:
    """Seconds to the first token and to the last, and the answer."""
    body = {"messages": [{"role": "user", "content": parts}], "max_tokens": tokens, "ignore_eos": True}
    body |= {"temperature": 0, "stream": True}
    began, first, text = time.monotonic(), 0.0, ""
    async with session.post(f"http://127.0.0.1:{PORT}/v1/chat/completions", json=body) as response:
        async for line in response.content:
            if line.startswith(b"data: {"):
                first = first or time.monotonic() - began
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(event["error"]["message"])
                text += event["choices"][0]["delta"].get("content") or ""
    if response.status != 200 or not first:
        raise RuntimeError(f"status {response.status}")
    return first, time.monotonic() - began, text


async def wait_ready(session: aiohttp.ClientSession, process: subprocess.Popen[bytes]) -> float:
    began = time.monotonic()
    while process.poll() is None:
        try:
            async with session.get(f"http://127.0.0.1:{PORT}/health") as response:
                if response.status == 200:
                    return time.monotonic() - began
        except aiohttp.ClientError:
            await asyncio.sleep(0.2)
    raise RuntimeError(f"the engine ended with {process.returncode}")


async def measure(process: subprocess.Popen[bytes]) -> tuple[list[tuple[str, str]], str]:
    rng = random.Random(0)
    rows: list[tuple[str, str]] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
        rows.append(("start to ready, s", f"{await wait_ready(session, process):.1f}"))
        first = picture(rng)
        _, _, answer = await ask(session, content(first, QUESTION), 64)
        new = [await ask(session, content(picture(rng), QUESTION), 32) for _ in range(5)]
        known = [await ask(session, content(first, f"{i} {QUESTION}"), 32) for i in range(5)]
        rows.append(("TTFT, a new picture of 1000 x 1000, ms", f"{statistics.median(r[0] for r in new) * 1e3:.0f}"))
        rows.append(("TTFT, the same picture again, ms", f"{statistics.median(r[0] for r in known) * 1e3:.0f}"))
        rate = statistics.median(31 / (last - start) for start, last, _ in known)
        rows.append(("tokens/s, one request", f"{rate:.1f}"))
        for together in (4, 16):
            pictures = [content(picture(rng), QUESTION) for _ in range(together)]
            began = time.monotonic()
            await asyncio.gather(*(ask(session, parts, 128) for parts in pictures))
            seconds = time.monotonic() - began
            rows.append(
                (f"{together} new pictures at once, 128 tokens each: tokens/s", f"{together * 128 / seconds:.0f}")
            )
    return rows, answer


def generate_says(folder: Path, encoded: bytes) -> str:
    """Plain transformers on the same picture and question: 64 greedy tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False)
    model = (
        transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16).to("cuda").eval()
    )
    seen = processor(images=[Image.open(io.BytesIO(encoded)).convert("RGB")], return_tensors="pt")
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}
    text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    count = int(seen["image_grid_thw"].prod()) // 4
    tokens = tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * count), return_tensors="pt").input_ids.cuda()
    out = model.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        pixel_values=seen["pixel_values"].cuda().to(torch.bfloat16),
        image_grid_thw=seen["image_grid_thw"].cuda(),
        mm_token_type_ids=(tokens == model.config.image_token_id).int(),
        max_new_tokens=64,
        min_new_tokens=64,
        do_sample=False,
    )
    return str(tokenizer.decode(out[0, tokens.shape[1] :], skip_special_tokens=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="3b")
    args, engine_args = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / args.shape
        began = time.monotonic()
        write_checkpoint(args.shape, folder)
        print(f"checkpoint written in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "vlfleet.engine.embedded", str(folder), "--port", str(PORT), *engine_args]
        process = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        try:
            rows, answer = asyncio.run(measure(process))
        finally:
            process.terminate()
            process.wait(30)
        theirs = generate_says(folder, picture(random.Random(0)))
    same = next(
        (i for i, (a, b) in enumerate(zip(answer, theirs, strict=False)) if a != b), min(len(answer), len(theirs))
    )
    rows.append(("characters equal to plain `generate` (bf16, 64 tokens)", f"{same} of {len(theirs)}"))
    name, flags = torch.cuda.get_device_name(), " ".join(engine_args) or "no flags"
    print(
        f"\nQwen2.5-VL-{args.shape.upper()} shape, random weights, {name}, {flags}; Python {platform.python_version()},"
    )
    print(f"torch {torch.__version__}, transformers {transformers.__version__}\n\n| what | measured |\n|---|---|")
    for what, figure in rows:
        print(f"| {what} | {figure} |")


if __name__ == "__main__":
    main()
