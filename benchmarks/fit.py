"""CPU time of fitting a picture at the gateway, against what Hugging Face's processor takes for the same picture.

    .venv/bin/python -m benchmarks.fit [--max-pixels 1003520] [--runs 7]

Seven pictures: two photos of 12 megapixels, a scanned page, a 4K and a phone's screenshot, 1080p, 480p; all made here.
`hf` is bytes to pixel_values by transformers' image processor, with each backend that can be imported here, one thread.
`fit` is bytes to a lossless file of the engine's size, `base64` what its text takes on top, and `left` what the same
processor still takes for the fitted file. A dash: the picture goes on as it came. Milliseconds of CPU, the least of the
runs, in turns. Fitting runs in a process made ready as the gateway's workers are, the rest in a plain one.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import io
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vlfleet.families import PixelLimits
from vlfleet.media.fit import Fit, Maths, Output, decode, fit, prepare

MIN_PIXELS = 3136
HUB_MAX_PIXELS = 12_845_056


def photo(width: int, height: int, seed: int) -> Image.Image:
    """Smooth shapes with the noise of a sensor."""
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = Image.fromarray(rng.normal(128, 14, (height // 2, width // 2, 3)).clip(0, 255).astype(np.uint8))
    return Image.blend(smooth, grain.resize((width, height), Image.Resampling.BILINEAR), 0.25)


def page(width: int, height: int, size: int, ground: str = "white") -> Image.Image:
    """Lines of text over the whole page."""
    picture = Image.new("RGB", (width, height), ground)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    for n, top in enumerate(range(size, height - 2 * size, size * 3 // 2)):
        words = " ".join(f"{(n * 7919 + k * 104729) % 99991:05d} quick brown fox" for k in range(width // (size * 10)))
        draw.text((size, top), words, fill=((n * 37) % 120, 0, (n * 91) % 160), font=font)
    return picture


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def pictures() -> dict[str, bytes]:
    return {
        "12.6 MP JPEG": encoded(photo(4096, 3072, 1), "JPEG", quality=90),
        "12.2 MP photo": encoded(photo(4032, 3024, 2), "JPEG", quality=95),
        "A4 300 dpi JPEG": encoded(page(2480, 3508, 36), "JPEG", quality=85),
        "4K PNG": encoded(page(3840, 2160, 22, "#f4f4f8"), "PNG"),
        "phone PNG": encoded(page(1440, 3120, 40, "#101418"), "PNG"),
        "1080p JPEG": encoded(photo(1920, 1080, 3), "JPEG", quality=88),
        "480p JPEG": encoded(photo(640, 480, 4), "JPEG", quality=88),
    }


def processors(max_pixels: int) -> dict[str, Any]:
    """transformers' image processors that can be imported here."""
    found: dict[str, Any] = {}
    try:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        found["pil"] = Qwen2VLImageProcessorPil(min_pixels=MIN_PIXELS, max_pixels=max_pixels)
    except ImportError:
        pass
    if importlib.util.find_spec("torchvision"):
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

        found["torchvision"] = Qwen2VLImageProcessor(min_pixels=MIN_PIXELS, max_pixels=max_pixels)
    return found


def cpu_ms(work: Callable[[], object]) -> float:
    """CPU milliseconds of this process."""
    begun = time.process_time()
    work()
    return 1000 * (time.process_time() - begun)


def process(backend: str, max_pixels: int, content: bytes) -> float:
    """transformers' own way, from bytes to pixel_values."""
    processor = processors(max_pixels)[backend]
    return cpu_ms(lambda: processor(images=[decode(content)], return_tensors="pt"))


def fitting(how: Fit, content: bytes) -> float:
    return cpu_ms(lambda: fit(content, how))


def encoding(content: bytes) -> float:
    return cpu_ms(lambda: base64.b64encode(content))


def one_thread() -> None:
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)


def row(name: str, content: bytes, max_pixels: int, runs: int, plain: Executor, ready: Executor) -> str:
    """One line of the table, and how many times faster `fit` is than each backend."""
    limits = PixelLimits(MIN_PIXELS, max_pixels)
    backends = processors(max_pixels)
    ways: dict[str, tuple[Executor, Callable[[], float]]] = {}
    for backend in backends:
        ways[f"hf {backend}"] = plain, partial(process, backend, max_pixels, content)
    sizes = f"{len(content) >> 10} KiB"
    for maths, output in ((Maths.TORCHVISION, Output.BMP), (Maths.TORCHVISION, Output.PNG), (Maths.PILLOW, Output.BMP)):
        how = Fit(28, limits, maths, output)
        small = fit(content, how)
        if small is None:
            continue
        ways[f"fit {maths} {output}"] = ready, partial(fitting, how, content)
        if maths is Maths.TORCHVISION:
            sizes += f", {output} {len(small) >> 10} KiB"
            ways[f"base64 {output}"] = ready, partial(encoding, small)
        backend = "pil" if maths is Maths.PILLOW else "torchvision"
        if output is Output.BMP and backend in backends:
            ways[f"left {backend}"] = plain, partial(process, backend, max_pixels, small)
    took = dict.fromkeys(ways, float("inf"))
    for _ in range(runs):
        for label, (pool, work) in ways.items():
            took[label] = min(took[label], pool.submit(work).result())
    cells = " | ".join(f"{label} {ms:.1f}" for label, ms in took.items())
    fitted = took.get("fit torchvision BMP")
    ratios = [f"{took[f'hf {backend}'] / fitted:.2f}x of hf {backend}" for backend in backends] if fitted else ["-"]
    return f"| {name} ({sizes}) | {cells} | {' | '.join(ratios)} |"


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-pixels", type=int, nargs="*", default=[1_003_520, HUB_MAX_PIXELS])
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args(None if arguments is None else list(arguments))
    made, spawn = pictures(), multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, spawn, one_thread) as plain,
        ProcessPoolExecutor(1, spawn, prepare, (Maths.TORCHVISION,)) as ready,
    ):
        for max_pixels in options.max_pixels:
            print(f"max_pixels {max_pixels}")
            for name, content in made.items():
                print(row(name, content, max_pixels, options.runs, plain, ready), flush=True)


if __name__ == "__main__":
    main()
