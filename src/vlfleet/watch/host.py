"""Asks the kernel what this machine does."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

from vlfleet.watch.model import HostSample


class HostReader:
    """This machine, and the disk on which `folder` is."""

    def __init__(self, folder: Path, root: Path = Path("/")) -> None:
        self._folder, self._group = folder, root / "sys/fs/cgroup"
        with suppress(OSError, psutil.Error):
            psutil.cpu_percent()  # the first answer means nothing: it is the share since this call

    def read(self) -> HostSample:
        """What the kernel says; zeros where it says nothing.

        Raises:
            OSError: there is no /proc.
        """
        facts: dict[str, int] = {}
        memory = psutil.virtual_memory()
        facts["memory_bytes"], facts["used_bytes"] = self._container(memory.total, memory.total - memory.available)
        with suppress(OSError):
            disk = psutil.disk_usage(str(self._folder))
            facts["disk_bytes"], facts["disk_free_bytes"] = disk.total, disk.free
        with suppress(OSError, AttributeError):
            cards = psutil.net_io_counters(pernic=True)
            others = [card for name, card in cards.items() if not name.startswith("lo")]
            facts["sent_bytes"] = sum(card.bytes_sent for card in others)
            facts["received_bytes"] = sum(card.bytes_recv for card in others)
        return HostSample(cpu=psutil.cpu_percent() / 100, **facts)

    def _container(self, total: int, used: int) -> tuple[int, int]:
        """The control group's limit and use where the limit is lower; page cache that can be dropped is no use."""
        with suppress(OSError, ValueError):
            limit = int((self._group / "memory.max").read_text())
            if limit < total:
                current = int((self._group / "memory.current").read_text())
                lines = (self._group / "memory.stat").read_text().splitlines()
                cache = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
                return limit, max(0, current - cache)
        return total, used
