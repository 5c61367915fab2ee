"""The checkpoint that --model names: on this disk by its headers and its speed, else on the hub by its size."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlfleet.checkpoint.info import preflight, shards_of
from vlfleet.checkup.facts.disk import hub_folder, look, read_mounts
from vlfleet.checkup.known import Known, Missing, NotKnown
from vlfleet.checkup.scene import Scene
from vlfleet.errors import VlfleetError

ENDPOINT = "https://huggingface.co"
READ_SECONDS = 1.0
HUB_SECONDS = 5.0
_CHUNK_BYTES = 8 << 20
_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_LEFT_OUT = (".bin", ".pth")
"""What `checkpoint.locate` does not download."""


@dataclass(frozen=True)
class Model:
    """What is known of it."""

    name: str
    folder: str = ""
    """Empty: not on this disk."""
    problem: str = ""
    """What its headers lack; empty: it is whole."""
    remedy: str = ""
    model_type: str = ""
    quantization: str = ""
    """`quant_method` of config.json."""
    fp8: bool = False
    bytes: int = 0
    """Of its tensors."""
    largest_shard_bytes: int = 0
    max_pixels: int = 0
    pixels_per_token: int = 0
    max_model_len: int = 0
    kind: str = ""
    """The file system where it lies, or would be downloaded to."""
    free_bytes: int = 0
    """There."""
    read_gb_s: float | None = None
    """Past the kernel's cache (O_DIRECT); None: that file system cannot, or too little was read to tell."""
    download_bytes: int | None = None
    """On the hub; None: not asked, or it did not say."""
    hub_error: str = ""
    offline: bool = False
    """Whether the environment forbids to ask the hub."""
    endpoint: str = ENDPOINT


def gather(scene: Scene, _: Known) -> Model:
    """Headers, and a second of reading; the network only for a name that is not on this disk.

    Raises:
        NotKnown: there is no --model.
    """
    if not scene.model:
        raise NotKnown(Missing("no --model was given", skipped=True))
    folder = find(scene)
    return _on_disk(scene, folder) if folder else _on_hub(scene)


def find(scene: Scene) -> Path | None:
    """Its folder, also in the hub's cache; nothing is downloaded."""
    path = Path(scene.model).expanduser()
    if path.is_dir():
        return path.resolve()
    if not _NAME.fullmatch(scene.model):
        return None
    cache = hub_folder(scene) / f"models--{scene.model.replace('/', '--')}"
    with contextlib.suppress(OSError):
        snapshot = cache / "snapshots" / (cache / "refs/main").read_text().strip()
        return snapshot.resolve() if (snapshot / "config.json").exists() else None
    return None


def _on_disk(scene: Scene, folder: Path) -> Model:
    room = look("model", folder, read_mounts(scene.read("proc/mounts").splitlines()))
    known: dict[str, Any] = {"folder": str(folder), "kind": room.kind, "free_bytes": room.free_bytes}
    try:
        info = preflight(folder)
        shards = shards_of(folder)
    except VlfleetError as error:
        return Model(scene.model, problem=error.cause, remedy=error.remedy, **known)
    largest = max(shards, key=lambda shard: shard.stat().st_size)
    quantization = info.config.get("quantization_config") or {}
    return Model(
        scene.model,
        model_type=info.family.model_type,
        quantization=info.quantization,
        fp8="float" in json.dumps(quantization) and info.dtype.startswith("F8"),
        bytes=info.bytes,
        largest_shard_bytes=largest.stat().st_size,
        max_pixels=info.max_pixels,
        pixels_per_token=info.family.factor**2,
        max_model_len=info.max_model_len,
        read_gb_s=read_speed(largest),
        **known,
    )


def read_speed(file: Path, seconds: float = READ_SECONDS) -> float | None:
    """GB/s of reading the beginning of a file past the kernel's cache, for at most `seconds`; None: it cannot be told.

    One reader with 8 MiB at a time, as safetensors' loader reads: a disk may do more for several.
    """
    try:
        descriptor = os.open(file.resolve(), os.O_RDONLY | os.O_DIRECT)
    except (OSError, AttributeError):  # no O_DIRECT on tmpfs, some network disks, other systems
        return None
    read, begun = 0, time.perf_counter()
    try:
        with mmap.mmap(-1, _CHUNK_BYTES) as buffer:  # O_DIRECT wants memory that begins with a page
            while time.perf_counter() - begun < seconds:
                got = os.preadv(descriptor, [buffer], read)
                read += got
                if got < _CHUNK_BYTES:
                    break
    except OSError:
        return None
    finally:
        os.close(descriptor)
    took = time.perf_counter() - begun
    return read / took / 1e9 if read >= 8 * _CHUNK_BYTES or took > seconds / 2 else None


def _on_hub(scene: Scene) -> Model:
    if not _NAME.fullmatch(scene.model):
        return Model(scene.model, problem=f"{scene.model} does not exist", remedy="give a folder or a name on the hub")
    room = look("model", hub_folder(scene), read_mounts(scene.read("proc/mounts").splitlines()))
    endpoint = (scene.env.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
    shown = re.sub(r"//[^/]*@", "//", endpoint)  # a mirror's address may hold a password
    known = {"kind": room.kind, "free_bytes": room.free_bytes, "endpoint": shown}
    if scene.env.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Model(scene.model, offline=True, **known)  # type: ignore[arg-type]
    size, model_type, error = ask_hub(endpoint, scene.model)
    return Model(scene.model, model_type=model_type, download_bytes=size, hub_error=error, **known)  # type: ignore[arg-type]


def _opener() -> urllib.request.OpenerDirector:
    """Through the proxies that the environment names; http and https alone, after redirects too."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def ask_hub(endpoint: str, name: str) -> tuple[int | None, str, str]:
    """Bytes to download, model_type, and what went wrong. Asks without an account."""
    url = f"{endpoint}/api/models/{name}?blobs=true"
    if not url.startswith(("https://", "http://")):
        return None, "", f"HF_ENDPOINT {endpoint} is no http(s) address"
    try:
        with _opener().open(url, timeout=HUB_SECONDS) as answer:
            facts = json.loads(answer.read(16 << 20))
        files = [each for each in facts.get("siblings", ()) if not str(each.get("rfilename")).endswith(_LEFT_OUT)]
        sizes = [each.get("size") for each in files]
        size = sum(sizes) if sizes and None not in sizes else None
        return size, str((facts.get("config") or {}).get("model_type", "")), ""
    except urllib.error.HTTPError as error:
        with error:
            return None, "", f"HTTP {error.code}"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = getattr(error, "reason", error)
        return None, "", f"{type(error).__name__}: {reason}".splitlines()[0][:200]
