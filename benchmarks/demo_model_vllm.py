"""Serve the bundled demo model with vLLM, unchanged, and compare its answers with transformers' (float32, greedy).

    python benchmarks/demo_model_vllm.py reference OUT.json     # CPU: questions, pictures and transformers' answers
    python benchmarks/demo_model_vllm.py serve OUT.json         # vLLM and a GPU: start, ask, compare, print a table

The first command needs torch, transformers and training/fetch_assets.sh; the second needs vLLM and aiohttp only.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import aiohttp

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODEL = ROOT / "src" / "vlfleet" / "demo" / "model"
IMAGES = ROOT / "src" / "vlfleet" / "demo" / "images"
PORT = 8137
FLAGS = ("--max-model-len", "2048", "--limit-mm-per-prompt", '{"image":4,"video":0}')
SAMPLES_A_TASK = 5
DEMO = (
    ("invoice.png", "Extract the invoice number, date and total as JSON."),
    ("invoice.png", "What is the total?"),
    ("shapes.png", "How many shapes are there?"),
    ("shapes.png", "How many stars are there?"),
    ("shapes.png", "Locate the red circle, output its bbox coordinates using JSON format."),
    ("word.png", "Read the word and give its bounding box as JSON."),
    ("word.png", "What does the image say?"),
)


def data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def reference(out: pathlib.Path) -> None:
    """Write the requests (OpenAI messages), transformers' answers and the right answers, where known, to OUT."""
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoTokenizer

    from training import chat, evaluate, exam, stock

    network = evaluate.load(MODEL, torch.device("cpu"), torch.float32)
    sides = AutoTokenizer.from_pretrained(MODEL), AutoImageProcessor.from_pretrained(MODEL, backend="pil")
    asked: list[tuple[str, exam.Sample, int]] = []
    for name, question in DEMO:
        image = Image.open(IMAGES / name).convert("RGB")
        talk = [chat.Message("system", "You are a helpful assistant."), chat.Message("user", question, [image])]
        asked.append((f"demo: {name}", exam.Sample("demo", talk, "", [image]), 160))
    for task in exam.TASKS:
        if task.system:
            made = [exam.sample(number, task) for number in range(SAMPLES_A_TASK)]
            asked += [(task.name, one, min(task.tokens, 320)) for one in made]
    rows = []
    for name, one, most in asked:
        messages: list[dict[str, Any]] = []
        images = iter(one.original)
        for message in one.talk:
            parts: list[dict[str, Any]] = []
            for _ in message.images:
                held = io.BytesIO()
                next(images).save(held, "PNG")
                parts.append({"type": "image_url", "image_url": {"url": data_url(held.getvalue())}})
            parts.insert(0 if message.text_first else len(parts), {"type": "text", "text": message.text})
            messages.append({"role": message.role, "content": parts})
        answer = stock.stock_answer(network, *sides, one, most)
        rows.append(
            {"task": name, "messages": messages, "max_tokens": most, "transformers": answer, "right": one.answer}
        )
    out.write_text(json.dumps(rows, ensure_ascii=False))
    print(f"{len(rows)} requests, {out.stat().st_size / 2**20:.1f} MiB")


def start(log: pathlib.Path, extra: list[str]) -> tuple[subprocess.Popen[bytes], float]:
    """Start the server and return it with the seconds until it was ready; raises RuntimeError if it dies."""
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(MODEL), "--served-model-name", "demo"]
    began = time.monotonic()
    with log.open("wb") as sink:
        server = subprocess.Popen(
            [*command, "--port", str(PORT), *FLAGS, *extra], stdout=sink, stderr=subprocess.STDOUT
        )
    while time.monotonic() - began < 300:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=1).close()
            return server, time.monotonic() - began
        except (urllib.error.URLError, OSError):
            if server.poll() is not None:
                break
            time.sleep(0.5)
    server.kill()
    raise RuntimeError(f"vLLM did not start: {log.read_text()[-3000:]}")


async def ask(session: aiohttp.ClientSession, row: dict[str, Any]) -> str:
    body = {"model": "demo", "messages": row["messages"], "max_tokens": row["max_tokens"], "temperature": 0}
    async with session.post(f"http://127.0.0.1:{PORT}/v1/chat/completions", json=body) as reply:
        given = await reply.json()
        if reply.status != 200:
            return f"HTTP {reply.status}: {json.dumps(given)[:200]}"
        return str(given["choices"][0]["message"]["content"]).strip()


async def ask_all(rows: list[dict[str, Any]], at_once: int) -> tuple[list[str], float]:
    """Return the answers in order and the seconds it took, AT_ONCE requests in flight."""
    gate = asyncio.Semaphore(at_once)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:

        async def one(row: dict[str, Any]) -> str:
            async with gate:
                return await ask(session, row)

        began = time.monotonic()
        answers = await asyncio.gather(*(one(row) for row in rows))
        return list(answers), time.monotonic() - began


def serve(path: pathlib.Path, extra: list[str]) -> None:
    rows = json.loads(path.read_text())
    log = pathlib.Path(os.environ.get("OUT", ".")) / "vllm.log"
    server, ready = start(log, extra)
    try:
        answers, first = asyncio.run(ask_all(rows, 16))
        many = [row | {"task": f"again {turn}"} for turn in range(8) for row in rows]
        _, warm = asyncio.run(ask_all(many, 64))
        kv = [
            line.split("GPU KV cache size:")[1].strip()
            for line in log.read_text().splitlines()
            if "GPU KV cache size:" in line
        ]
        same = [answer == row["transformers"] for answer, row in zip(answers, rows, strict=True)]
        known = [(answer, row) for answer, row in zip(answers, rows, strict=True) if row["right"]]
        right = [answer == row["right"] for answer, row in known]
        reference_right = [row["transformers"] == row["right"] for _, row in known]
        for row, answer in zip(rows, answers, strict=True):
            if row["task"].startswith("demo"):
                print(f"{row['task']} | {row['messages'][-1]['content'][-1]['text']} | {answer}")
        for row, answer, equal in zip(rows, answers, same, strict=True):
            if not equal:
                print(f"differs, {row['task']}: vLLM {answer!r},")
                print(f"    transformers {row['transformers']!r}, right {row['right']!r}")
        print("| measure | value |\n|---|---|")
        print(f"| ready after | {ready:.1f} s |\n| KV cache | {kv[0] if kv else 'not in the log'} |")
        print(f"| answers equal to transformers float32 | {sum(same)} of {len(same)} ({sum(same) / len(same):.1%}) |")
        print(f"| exactly right: vLLM / transformers | {sum(right)} / {sum(reference_right)} of {len(known)} |")
        print(f"| first pass, 16 at once | {len(rows) / first:.1f} requests/s |")
        print(f"| pictures seen before, 64 at once | {len(many) / warm:.1f} requests/s |")
    finally:
        server.terminate()
        server.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("reference", "serve"))
    parser.add_argument("path", type=pathlib.Path)
    args, extra = parser.parse_known_args()
    if args.step == "reference":
        reference(args.path)
    else:
        serve(args.path, extra)


if __name__ == "__main__":
    main()
