"""What the GPUs of this machine do, whoever made them."""

from __future__ import annotations

from vlfleet.hardware.reading import GpuReading
from vlfleet.hardware.readings_amd import AmdReader
from vlfleet.hardware.readings_nvidia import NvidiaReader


class GpuReader:
    """NVIDIA's where there are any, else AMD's: engines use one make. `read` blocks: it belongs into a thread."""

    def __init__(self) -> None:
        self._readers = (NvidiaReader(), AmdReader())

    def read(self) -> tuple[GpuReading, ...]:
        """All GPUs by index; none where there is none or no library tells of it. Raises nothing."""
        return next((found for reader in self._readers if (found := reader.read())), ())

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
