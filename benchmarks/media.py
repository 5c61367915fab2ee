"""CPU milliseconds of what the gateway does with a 2 MB body that holds one picture, step by step.

    .venv/bin/python -m benchmarks.media [--runs 25]

The least of the runs, one core. Compared with naming the picture by its decoded bytes, which is what the steps avoid.
"""

from __future__ import annotations

import argparse
import base64
import io
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import orjson
from blake3 import blake3
from PIL import Image

from vlfleet.families.family import QWEN2_5_VL
from vlfleet.media import Edit, Namer, Vision, digest_of_base64, digest_of_bytes, examine_data_url, splice
from vlfleet.media.references import references
from vlfleet.media.spans import spans

ENCODED_BYTES = 1_500_000


def picture() -> bytes:
    """A JPEG, filled up to the size."""
    pixels = np.random.default_rng(1).integers(0, 256, (700, 1200, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=80)
    content = stream.getvalue()
    return content + bytes(ENCODED_BYTES - len(content))


def least_ms(work: Callable[[], object], runs: int) -> float:
    took = []
    for _ in range(runs):
        begun = time.process_time()
        work()
        took.append(time.process_time() - begun)
    return 1000 * min(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=25)
    runs = parser.parse_args().runs
    content = picture()
    text = base64.b64encode(content)
    url = "data:image/jpeg;base64," + text.decode()
    part = {"type": "image_url", "image_url": {"url": url}}
    content_parts = [part, {"type": "text", "text": "What is this?"}]
    body = bytearray(orjson.dumps({"model": "m", "messages": [{"role": "user", "content": content_parts}]}))
    request = orjson.loads(body)
    vision, namer, digest = Vision.of(QWEN2_5_VL), Namer(bytes(32)), digest_of_bytes(content)
    named, dropped = Edit(0, 0, uuid="vlf-" + "0" * 64), Edit(0, 0, uuid="vlf-" + "0" * 64, drop=True)
    steps: dict[str, Callable[[], object]] = {
        "parse the body (orjson)": partial(orjson.loads, body),
        "find the references": lambda: list(references(request["messages"])),
        "digest, header and tokens": partial(examine_data_url, url, "image", vision),
        "of it the digest of the base64": partial(digest_of_base64, text),
        "name it": partial(namer.name, digest, tenant="a"),
        "spans in the body": partial(spans, body),
        "splice a uuid in": partial(splice, body, request, [named]),
        "splice the data out": partial(splice, body, request, [dropped]),
        "instead: decode, then digest": lambda: blake3(base64.b64decode(text, validate=True)).digest(),
        "once for an upload: encode, digest": partial(digest_of_bytes, content),
    }
    for name, work in steps.items():
        print(f"| {name} | {least_ms(work, runs):.3f} |")


if __name__ == "__main__":
    main()
