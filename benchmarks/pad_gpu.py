"""Real int4 kernels on padded checkpoints: Qwen2.5-VL-72B's shape, two layers, AWQ and GPTQ in groups of 128.

    python -m benchmarks.pad_gpu [--tokenizer FOLDER] [--folder /tmp]          on two GPUs, with vLLM in this Python
    python -m benchmarks.pad_gpu --small --python .venv-vllm/bin/python        the same on a CPU, tiny

For each format: the unpadded checkpoint at TP 2 (vLLM must refuse it), the unpadded one at TP 1, the padded one at
TP 2, and at TP 2 the bf16 checkpoint to which the int4 one dequantises exactly. All are asked the same: the
log-probability of every token of a text, and the 20 likeliest first tokens about a picture. What the kernels' rounding
makes of them is what TP 1 shows against bf16; the padded checkpoint may be twice as far off. Weights are random; no
network is needed. Every server is ended, and everything on disk deleted. Exit code 1 if something is not as it must be.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.int4_checkpoint import SMALL, Shape, rest, save, write
from vlfleet.checkpoint.pad import pad

FORMS = {"awq": False, "gptq": True}
"""Format, and whether it is symmetric."""
START_SECONDS = 240.0
SLACK = 0.02
"""Of a log-probability, beside twice what the kernel alone does."""
KNOWN = re.compile(r"(?:The input size is not aligned|Failed to find a kernel|\S[^\n]* is not divisible by)[^\n]*")
"""How vLLM refuses a group that two ranks would share."""


@dataclass(frozen=True)
class Job:
    """One server."""

    name: str
    model: Path
    tp: int
    gpu: int
    """The first of its GPUs."""


@dataclass(frozen=True)
class Answer:
    """What a server said, or why it did not start."""

    seconds: float
    error: str = ""
    text: tuple[float, ...] = ()
    """Log-probabilities of the text's tokens."""
    picture: tuple[tuple[str, float], ...] = ()
    """The likeliest first tokens about the picture, with their log-probabilities."""


def serve(job: Job, started: threading.Barrier, python: Path, logs: Path, cpu: bool) -> Answer:
    """Start vLLM, ask it, end it.

    It ends once all that were started with it are up or have failed: vLLM does not stand it if somebody frees memory of
    its GPU while it takes stock of that.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [str(python), "-m", "vllm.entrypoints.cli.main", "serve", str(job.model), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--served-model-name", "m", "--dtype", "bfloat16", "--max-model-len", "2048"]
    command += ["--enforce-eager", "--max-num-seqs", "8", "--max-num-batched-tokens", "2048", "--max-logprobs", "20"]
    command += ["--limit-mm-per-prompt", '{"image":1,"video":0}', "--tensor-parallel-size", str(job.tp)]
    env = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "NCCL_NVLS_ENABLE": "0"}
    if cpu:
        command += ["--kv-cache-memory-bytes", "64M"]
        env |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    else:
        # A KV cache of a given size: what neighbours take while they start would be counted as this one's.
        command += ["--gpu-memory-utilization", "0.2", "--kv-cache-memory-bytes", "2G"]
        env |= {"CUDA_VISIBLE_DEVICES": ",".join(str(job.gpu + rank) for rank in range(job.tp))}
    log, began = logs / f"{job.name}.log", time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=env, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        while not is_ready(url):
            if process.poll() is not None or time.monotonic() - began > START_SECONDS:
                return Answer(time.monotonic() - began, error=cause(log.read_text(errors="replace")))
            time.sleep(0.5)
        seconds = time.monotonic() - began
        return Answer(seconds, text=ask_text(url, job.model), picture=ask_picture(url))
    except OSError as error:
        return Answer(
            time.monotonic() - began, error=f"started, then: {error}; {cause(log.read_text(errors='replace'))}"
        )
    finally:
        with contextlib.suppress(threading.BrokenBarrierError):
            started.wait(START_SECONDS)
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # workers that outlived the API server


def is_ready(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=2) as reply:  # noqa: S310
        return bool(reply.status == 200)
    return False


def cause(log: str) -> str:
    """The line that says why vLLM did not start."""
    found = KNOWN.search(log)
    lines = [line for line in log.splitlines() if "Error" in line]
    return (found[0] if found else lines[-1] if lines else log[-300:]).strip()[:200]


def post(url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    content = json.dumps({"model": "m", "max_tokens": 1, "temperature": 0, **body}).encode()
    request = urllib.request.Request(f"{url}{path}", content, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=180) as reply:  # noqa: S310
        return dict(json.load(reply)["choices"][0])


def ask_text(url: str, model: Path) -> tuple[float, ...]:
    count = json.loads((model / "config.json").read_text())["vocab_size"] // 2
    prompt = random.Random(5).choices(range(count), k=96)
    choice = post(url, "/v1/completions", {"prompt": prompt, "prompt_logprobs": 0})
    return tuple(
        place[str(token)]["logprob"] for token, place in zip(prompt[1:], choice["prompt_logprobs"][1:], strict=True)
    )


def ask_picture(url: str) -> tuple[tuple[str, float], ...]:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (8, 8), random.Random(6).randbytes(192)).resize((224, 224)).save(buffer, "PNG")
    image = {"url": "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()}
    content = [{"type": "image_url", "image_url": image}, {"type": "text", "text": "Describe the image."}]
    body = {"messages": [{"role": "user", "content": content}], "logprobs": True, "top_logprobs": 20}
    top = post(url, "/v1/chat/completions", body)["logprobs"]["content"][0]["top_logprobs"]
    return tuple((json.dumps(each["bytes"]), each["logprob"]) for each in top)


def distance(one: Answer, other: Answer) -> float:
    """The largest difference of two log-probabilities, over the text and what both have among their 20 likeliest."""
    if one.error or other.error:
        return math.inf
    a, b = dict(one.picture), dict(other.picture)
    pairs = [*zip(one.text, other.text, strict=True), *((a[token], b[token]) for token in a.keys() & b.keys())]
    return max(abs(x - y) for x, y in pairs)


def prepare(folder: Path, shape: Shape, tokenizer: Path) -> dict[str, Path]:
    """Every checkpoint, made side by side; then padded by vlfleet."""
    began = time.monotonic()
    save(folder / "rest", rest(shape))
    made = {}
    with ProcessPoolExecutor(4) as pool:
        running = []
        for form, symmetric in FORMS.items():
            for name, kind in ((form, form), (f"bf16 {form}", "bf16")):
                made[name] = folder / name.replace(" ", "-")
                work = partial(write, made[name], kind, shape, tokenizer, shared=folder / "rest", symmetric=symmetric)
                running.append(pool.submit(work))
        for each in running:
            each.result()
    print(f"made {len(made)} checkpoints in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    for form in FORMS:
        began = time.monotonic()
        plan = pad(made[form], folder / f"{form}-padded", 2)
        made[f"{form} padded"] = folder / f"{form}-padded"
        written = plan.rewrite.written_bytes / 1e9
        print(
            f"padded {form} {plan.before} -> {plan.after}: {written:.2f} GB in {time.monotonic() - began:.1f} s",
            file=sys.stderr,
            flush=True,
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="that has vLLM")
    parser.add_argument("--tokenizer", type=Path, default=Path("/opt/vl/models/tokenizer"))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--logs", type=Path, default=Path(os.environ.get("OUT", tempfile.gettempdir())))
    parser.add_argument("--small", action="store_true", help="the bundled model's shape and tokenizer, on a CPU")
    options = parser.parse_args()
    if options.small:
        from vlfleet import demo

        options.tokenizer = demo.model_path()
    folder = Path(tempfile.mkdtemp(prefix="pad-gpu-", dir=options.folder))
    try:
        made = prepare(folder, SMALL if options.small else Shape(), options.tokenizer)
        answers: dict[str, Answer] = {}
        for wave in waves(made):
            for jobs in [[job] for job in wave] if options.small else [wave]:
                barrier = threading.Barrier(len(jobs))
                run = partial(serve, started=barrier, python=options.python, logs=options.logs, cpu=options.small)
                with ThreadPoolExecutor(len(jobs)) as pool:
                    answers |= zip([job.name for job in jobs], pool.map(run, jobs), strict=True)
    finally:
        shutil.rmtree(folder)
    sys.exit(report(answers, cpu=options.small))


def waves(made: dict[str, Path]) -> list[list[Job]]:
    """What runs side by side: both formats, each with a fifth of a GPU's memory."""
    return [
        [Job(f"{form} tp2", made[form], 2, 0) for form in FORMS],
        [Job(f"{form} tp1", made[form], 1, number) for number, form in enumerate(FORMS)],
        [Job(f"{form} padded tp2", made[f"{form} padded"], 2, 0) for form in FORMS],
        [Job(f"bf16 {form} tp2", made[f"bf16 {form}"], 2, 0) for form in FORMS],
    ]


def report(answers: dict[str, Answer], *, cpu: bool) -> int:
    """Prints the table; 0 if everything is as it must be. On a CPU vLLM does not refuse the unpadded checkpoints."""
    print("| | starts | seconds | furthest log-probability from bf16 | from int4 at TP 1 | likeliest token |")
    print("|---|---|---|---|---|---|")
    failed = 0
    for form in FORMS:
        reference, kernel = answers[f"bf16 {form} tp2"], answers[f"{form} tp1"]
        allowed = 2 * distance(kernel, reference) + SLACK
        for name in (f"{form} tp2", f"{form} tp1", f"{form} padded tp2", f"bf16 {form} tp2"):
            answer = answers[name]
            if answer.error:
                print(f"| {name} | no | {answer.seconds:.0f} | {answer.error} | | |")
                continue
            same = "same" if answer.picture[:1] and answer.picture[0][0] == reference.picture[0][0] else "another"
            far = f"{distance(answer, reference):.4f} | {distance(answer, kernel):.4f}"
            print(f"| {name} | yes | {answer.seconds:.0f} | {far} | {same} |")
        refused = bool(answers[f"{form} tp2"].error)
        right = distance(answers[f"{form} padded tp2"], reference) <= allowed
        failed += (not refused and not cpu) + (not right)
        print(
            f"\n{form}: unpadded at TP 2 {'refused' if refused else 'SERVED'}; padded at TP 2 "
            f"{'right' if right else 'WRONG'} (allowed {allowed:.4f})\n",
            file=sys.stderr,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    main()
