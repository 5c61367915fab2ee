"""Fleets of the real vLLM on GPUs, each as a person would start it: phases, memory, 100 requests through the gateway.

    python -m benchmarks.vllm_gpu --models FOLDER [--out FOLDER] [--only NAME ...]

FOLDER holds q25vl-7b/ and q25vl-72b/: real shapes and tokenizer, no weights (they are made up: --load-format dummy).
Needs two GPUs (7b-1x: one) and a vLLM ($VLFLEET_VLLM, or beside vlfleet). Prints a table in Markdown; logs and status
go to --out.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from PIL import Image

COMMON = ("--max-model-len", "8192", "--max-pixels", "1003520")
DUMMY = ("--", "--load-format", "dummy")
REQUESTS, IN_FLIGHT, TOKENS, SIDE = 100, 32, 64, 1024


@dataclass(frozen=True)
class Case:
    """One fleet."""

    model: str
    arguments: tuple[str, ...]
    hang: bool = False
    """Whether one engine is then stopped by SIGSTOP under load."""


CASES = {
    "7b-1x": Case("q25vl-7b", ("--replicas", "1")),
    "7b-2x": Case("q25vl-7b", ("--replicas", "2"), hang=True),
    "7b-tp2": Case("q25vl-7b", ("--replicas", "1", "-tp", "2")),
    "7b-pp2": Case("q25vl-7b", ("--replicas", "1", "-pp", "2")),
    "7b-2x-fp8": Case("q25vl-7b", ("--replicas", "2", "--quantization", "fp8")),
    "72b-tp2": Case("q25vl-72b", ("--replicas", "1", "-tp", "2")),
}


def vlfleet(*arguments: str, timeout: float = 420) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlfleet", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def status() -> dict[str, Any]:
    return dict(json.loads(vlfleet("status", "--json").stdout))


def picture(random_state: random.Random) -> str:
    """A JPEG of 1024 x 1024 like a photo: smooth shapes with noise, each one new."""
    small = Image.frombytes("RGB", (16, 16), random_state.randbytes(768))
    noise = Image.effect_noise((SIDE, SIDE), 20).convert("RGB")
    image = Image.blend(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), noise, 0.2)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


async def one(session: aiohttp.ClientSession, url: str, model: str, image: str, results: list[dict[str, Any]]) -> None:
    content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "Describe the picture."}]
    messages = [{"role": "user", "content": content}]
    body = {"model": model, "messages": messages, "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
    began, first, last = time.perf_counter(), 0.0, b""
    try:
        async with session.post(f"{url}/chat/completions", json=body) as answer:
            async for chunk in answer.content.iter_any():
                first = first or time.perf_counter() - began
                last = (last + chunk)[-200:]
            good = answer.status == 200 and b"[DONE]" in last and b'"error"' not in last
    except aiohttp.ClientError as error:
        good, last = False, str(error).encode()
    results.append({"ok": good, "ttft": first, "end": time.perf_counter() - began, "last": last.decode()[-120:]})


async def load(url: str, model: str, count: int, seconds: float = 0.0) -> dict[str, Any]:
    """`count` requests, or as many as `seconds` allow, each with a picture of its own."""
    draw = random.Random(7)
    images = [picture(draw) for _ in range(count)]
    results: list[dict[str, Any]] = []
    began = time.perf_counter()
    left = iter(range(count if not seconds else 10**9))

    async def worker(session: aiohttp.ClientSession) -> None:
        for number in left:
            if seconds and time.perf_counter() - began > seconds:
                return
            await one(session, url, model, images[number % len(images)], results)

    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(worker(session) for _ in range(IN_FLIGHT)))
    took = time.perf_counter() - began
    good = [result for result in results if result["ok"]]
    return {
        "good": len(good),
        "bad": len(results) - len(good),
        "per_second": round(len(good) / took, 2),
        "ttft_p50_ms": round(1000 * statistics.median([result["ttft"] for result in good] or [0])),
        "first_bad": next((result["last"] for result in results if not result["ok"]), ""),
    }


def hang(url: str, model: str) -> str:
    """SIGSTOPs the computing process of r1 under load; says when it was out of rotation and back."""

    async def scene() -> str:
        pid = next(each["pid"] for each in status()["replicas"] if each["name"] == "r1")
        children = psutil.Process(pid).children(recursive=True)
        core = next(child for child in children if "EngineCore" in child.name() or "EngineCore" in str(child.cmdline()))
        asking = asyncio.create_task(load(url, model, 32, seconds=100))
        await asyncio.sleep(5)
        core.send_signal(signal.SIGSTOP)
        stopped, out, back = time.perf_counter(), 0.0, 0.0
        while not back and time.perf_counter() - stopped < 95:
            facts = await asyncio.to_thread(status)
            phase = next(each["phase"] for each in facts["replicas"] if each["name"] == "r1")
            now = time.perf_counter() - stopped
            out = out or (now if phase != "ready" else 0.0)
            back = now if out and phase == "ready" else 0.0
        loaded = await asking
        return f"SIGSTOP of r1 under load: out of rotation after {out:.1f} s, ready again after {back:.1f} s; {loaded}"

    return asyncio.run(scene())


def power_watts(seconds: float) -> float:
    """Mean draw of GPU 0."""
    watts = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        asked = ["nvidia-smi", "-i", "0", "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
        watts.append(float(subprocess.run(asked, capture_output=True, text=True).stdout.strip() or 0))
        time.sleep(0.25)
    return statistics.mean(watts)


def idle_power() -> str:
    """What a look at an idle engine every few seconds costs: with the supervisor, and with the supervisor stopped."""
    supervisor = psutil.Process(status()["supervisor_pid"])
    time.sleep(5)
    watched = power_watts(12)
    supervisor.suspend()
    time.sleep(3)
    alone = power_watts(12)
    supervisor.resume()
    return f"idle draw of GPU 0: {watched:.1f} W watched, {alone:.1f} W with the supervisor stopped"


def run(name: str, case: Case, models: Path, out: Path) -> str:
    """One row of the table."""
    arguments = ("up", str(models / case.model), "--engine", "vllm", "--port", "0", *COMMON, *case.arguments)
    print(f"\n## {name}", flush=True)
    dry = vlfleet(*arguments, "--dry-run", *DUMMY)
    print(dry.stdout, dry.stderr, sep="", flush=True)
    began = time.perf_counter()
    started = vlfleet(*arguments, "--detach", "--json", *DUMMY)
    ready = time.perf_counter() - began
    if started.returncode:
        print(started.stderr[-3000:], flush=True)
        return f"| {name} | failed: {started.stderr.strip().splitlines()[-2:]} | | | | | | |"
    url = json.loads(started.stdout)["url"]
    try:
        facts = status()
        (out / f"{name}.json").write_text(json.dumps(facts, indent=1))
        print(vlfleet("status").stdout, flush=True)
        done = asyncio.run(load(url, facts["served_model_name"], REQUESTS))
        print(json.dumps(done), flush=True)
        if case.hang:
            print(idle_power(), flush=True)
            print(hang(url, facts["served_model_name"]), flush=True)
    finally:
        print(vlfleet("down").stderr, end="", flush=True)
        home = Path(os.environ["VLFLEET_HOME"])
        for log in (home / "default" / "logs").glob("*.log"):
            (out / f"{name}.{log.name}").write_bytes(log.read_bytes()[:400_000])
    first = facts["replicas"][0]
    decided = first["decisions"]
    phases = ", ".join(f"{phase} {seconds:.0f}" for phase, seconds in first["phases"].items())
    memory = (
        f"weights {decided.get('weights_gib')}, activation {decided.get('activation_gib')}, "
        f"graphs {decided.get('graphs_gib')}, KV {decided.get('kv_cache_gib')}"
    )
    cells = (
        name, f"{ready:.0f}", phases, memory, f"{decided.get('kv_cache_tokens', 0):,}",
        f"{done['good']} of {REQUESTS}", done["per_second"], done["ttft_p50_ms"],
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    rows = [run(name, CASES[name], options.models, options.out) for name in options.only]
    print("\n| fleet | up s | phases of r0, s | GiB a GPU | KV tokens | answered | requests/s | TTFT p50 ms |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
