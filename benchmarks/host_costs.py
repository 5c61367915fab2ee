"""CPU seconds behind the planner's host coefficients (plan/speed_coefficients.py), of one thread.

    PYTHONPATH=src .venv-vllm/bin/python -m benchmarks.host_costs [--model src/vlfleet/demo/model]

Pictures: decode, hash and processing by size. Pixels: from one process to another as vLLM sends them, and copied. The
vision tower: how long the kernels of one eager layer take to be launched. With --model the API server of a real vLLM on
the CPU is asked by itself: CPU seconds of its threads a request, a token, a step and a byte of a picture.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from vlfleet.calibrate.host_inside import cpu_seconds, decoded, photo

SIDES = (224, 448, 700, 1024, 1400, 2048, 3584)
LAYERS, WIDTH = 32, 64


def pictures() -> None:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from vllm.multimodal.hasher import MultiModalHasher

    warnings.simplefilter("ignore")
    processor = Qwen2VLImageProcessor(size={"shortest_edge": 3136, "longest_edge": 16384 * 784})
    print("| side | JPEG kB | decode ms | hash ms | process ms | process ns/pixel |\n|---|---|---|---|---|---|")
    for side in SIDES:
        encoded = photo(side)
        image = decoded(encoded)
        decode = cpu_seconds(partial(decoded, encoded))
        hashing = cpu_seconds(partial(MultiModalHasher.hash_kwargs, "blake3", model_id="m", image=image))
        process = cpu_seconds(partial(processor, images=[image], return_tensors="pt"))
        row = (f"{len(encoded) / 1000:.0f}", f"{1e3 * decode:.1f}", f"{1e3 * hashing:.2f}", f"{1e3 * process:.1f}")
        print(f"| {side} | {' | '.join(row)} | {1e9 * process / side**2:.1f} |", flush=True)


def _receive(address: str, times: int, done: Any) -> None:
    import zmq  # type: ignore[import-not-found]
    from vllm.v1.serial_utils import MsgpackDecoder

    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.connect(address)
        decoder = MsgpackDecoder(dict)
        for _ in range(times):
            decoder.decode(pull.recv_multipart(copy=False))
            done.put(time.perf_counter())


def pixels(patches: int = 4900, times: int = 12) -> None:
    import torch
    import zmq
    from vllm.v1.serial_utils import MsgpackEncoder

    values = torch.rand(patches, 1176)
    size = values.numel() * 4
    done: Any = multiprocessing.Queue()
    took = []
    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}/socket"
        other = multiprocessing.Process(target=_receive, args=(address, times, done))
        with zmq.Context() as context, context.socket(zmq.PUSH) as push:
            push.bind(address)
            other.start()
            time.sleep(5)
            for _ in range(times):
                begun = time.perf_counter()
                push.send_multipart(MsgpackEncoder().encode({"pixels": values}), copy=False)
                took.append(done.get() - begun)
        other.join()
    print(f"\n{size / 1e6:.0f} MB to another process: {1e9 * statistics.median(took) / size:.2f} ns/byte (wall)")
    print(f"copied once: {1e9 * cpu_seconds(values.clone) / size:.3f} ns/byte")


def launches() -> None:
    """A tower so narrow that its arithmetic takes no time."""
    import torch
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

    found = {}
    for depth in (8, LAYERS):
        config = Qwen2_5_VLVisionConfig(
            depth=depth, hidden_size=WIDTH, num_heads=4, intermediate_size=WIDTH, out_hidden_size=WIDTH
        )
        config._attn_implementation = "sdpa"
        tower = Qwen2_5_VisionTransformerPretrainedModel(config).eval()
        values, grid = torch.rand(64, 1176), torch.tensor([[1, 8, 8]])
        with torch.inference_mode():
            found[depth] = 1000 * cpu_seconds(partial(tower, values, grid), 30)
    print(f"\none eager vision layer: {(found[LAYERS] - found[8]) / (LAYERS - 8):.3f} ms")


# A real API server


@contextlib.contextmanager
def api_server(model: Path) -> Iterator[tuple[str, Any]]:
    """Its URL and process; the engine is another process and does not count."""
    import psutil

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("vllm")), "serve", str(model), "--served-model-name", "m"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", "2048", "--enforce-eager"]
    command += ["--kv-cache-memory-bytes", "256M", "--mm-processor-kwargs", '{"max_pixels":200000}']
    command += ["--limit-mm-per-prompt", '{"image":1,"video":0}', "--no-enable-log-requests"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    process = subprocess.Popen(command, env=env, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(480):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/health", timeout=1)  # noqa: S310
                break
            time.sleep(0.5)
        yield url, psutil.Process(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)


async def ask(url: str, process: Any, name: str, contents: list[Any], tokens: int, load: int) -> None:
    import aiohttp

    left = iter(contents)

    async def worker(session: Any) -> None:
        for content in left:
            body = {"model": "m", "messages": [{"role": "user", "content": content}], "max_tokens": tokens}
            body |= {"temperature": 0, "ignore_eos": True, "stream": True}
            async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                text = await answer.text()
                assert answer.status == 200, text[:300]

    def threads() -> dict[int, float]:
        return {each.id: each.user_time + each.system_time for each in process.threads()}

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        before = threads()
        await asyncio.gather(*(worker(session) for _ in range(load)))
        after = threads()
    spent = sorted((1000 * (after[each] - before.get(each, 0)) / len(contents) for each in after), reverse=True)
    shown = " + ".join(f"{each:.2f}" for each in spent[:3])
    print(f"| {name} | {tokens} | {load} | {sum(spent):.2f} | {shown} |", flush=True)


async def server(model: Path) -> None:
    def text(content: str) -> dict[str, Any]:
        return {"type": "text", "text": content}

    def image(encoded: bytes | None, uuid: str) -> dict[str, Any]:
        url = None if encoded is None else "data:image/jpeg;base64," + base64.b64encode(encoded).decode()
        return {"type": "image_url", "image_url": None if url is None else {"url": url}, "uuid": uuid}

    with api_server(model) as (url, process):
        print("\n| request | tokens out | in flight | CPU ms | by thread |\n|---|---|---|---|---|")
        large, small = photo(1024), photo(256)
        known = [[image(large, "large"), text(f"q {number}")] for number in range(60)]
        again = [[image(None, "small"), text(f"q {number}")] for number in range(100)]
        words = [[text(f"{number} " + "hello " * 30)] for number in range(200)]
        await ask(url, process, "warm-up", words[:20], 8, 4)
        await ask(url, process, "text", words, 1, 8)
        await ask(url, process, "text", words[:60], 64, 8)
        await ask(url, process, "text", words[:96], 64, 32)
        await ask(url, process, "picture, new", known[:1], 1, 1)
        await ask(url, process, "picture, known", known, 1, 8)
        await ask(url, process, "picture, new", [[image(small, "small"), text("q")]], 1, 1)
        await ask(url, process, "picture by uuid", again, 1, 8)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    pictures()
    pixels()
    launches()
    if arguments.model:
        asyncio.run(server(arguments.model))
