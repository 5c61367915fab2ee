"""The folders that a fleet writes to or reads from: how much is free there, and whether they lie across a network."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vlfleet.checkup.known import Known
from vlfleet.checkup.scene import Scene
from vlfleet.home import home

NETWORK = (
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre", "beegfs", "gpfs", "afs", "9p", "virtiofs"),
    *("fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.goofys", "fuse.juicefs", "fuse.glusterfs", "fuse.ceph"),
    *("fuse.rclone", "fuse.blobfuse2", "fuse.mount-s3", "fuse.jfs"),
)
"""Types of file systems whose files are elsewhere."""


@dataclass(frozen=True)
class Folder:
    """A folder, or the nearest one above it that exists."""

    purpose: str
    path: str
    exists: bool = True
    writable: bool = True
    free_bytes: int = 0
    total_bytes: int = 0
    free_files: int | None = None
    """Inodes; None where the file system does not count them."""
    kind: str = ""
    """Type of the file system: ext4, nfs4, overlay, tmpfs, ..."""

    @property
    def network(self) -> bool:
        return self.kind in NETWORK


@dataclass(frozen=True)
class Disks:
    """By what they are for."""

    hub: Folder
    """Where downloads from the hub go."""
    state: Folder
    """Where vlfleet keeps fleets and logs."""
    temporary: Folder
    metrics: Folder
    """Where vLLM's API servers keep their counters: $PROMETHEUS_MULTIPROC_DIR, else the temporary folder."""
    compiled: Folder
    """Where vLLM keeps what it compiled."""

    @property
    def all(self) -> tuple[Folder, ...]:
        return self.hub, self.state, self.temporary, self.metrics, self.compiled


def hub_folder(scene: Scene) -> Path:
    """As huggingface_hub finds it: $HF_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub, ~/.cache/..."""
    env = scene.env
    if cache := env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE"):
        return Path(cache).expanduser()
    base = env.get("HF_HOME") or str(Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(base).expanduser() / "hub"


def gather(scene: Scene, _: Known) -> Disks:
    """Asks the file systems; one across a network that does not answer makes this hang."""
    mounts = read_mounts(scene.read("proc/mounts").splitlines())
    temporary = Path(scene.env.get("TMPDIR") or tempfile.gettempdir())
    metrics = scene.env.get("PROMETHEUS_MULTIPROC_DIR")
    cache = scene.env.get("VLLM_CACHE_ROOT") or str(Path(scene.env.get("XDG_CACHE_HOME") or "~/.cache") / "vllm")
    return Disks(
        hub=look("downloads", hub_folder(scene), mounts),
        state=look("fleets and logs", home(), mounts),
        temporary=look("temporary files", temporary, mounts),
        metrics=look("counters of API servers", Path(metrics) if metrics else temporary, mounts),
        compiled=look("compiled kernels", Path(cache).expanduser(), mounts),
    )


def look(purpose: str, path: Path, mounts: Iterable[tuple[str, str]]) -> Folder:
    """What there is at `path`."""
    there = path.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    free = total = 0
    files: int | None = None
    with contextlib.suppress(OSError):
        found = os.statvfs(there)
        free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
        files = found.f_favail if found.f_files else None
    return Folder(
        purpose,
        str(path),
        path.exists(),
        os.access(there, os.W_OK),
        free,
        total,
        files,
        kind_of(there.resolve(), mounts),
    )


def read_mounts(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Mount point and type of each line of /proc/mounts."""
    rows = [line.split() for line in lines]
    return [(row[1].replace("\\040", " "), row[2]) for row in rows if len(row) > 2]


def kind_of(path: Path, mounts: Iterable[tuple[str, str]]) -> str:
    """The type of the file system at `path`: that of the longest mount point above it, of several there the last."""
    best, kind = -1, ""
    for point, name in mounts:
        if path.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), name
    return kind
