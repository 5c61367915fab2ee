"""What this machine has, as far as it can be known without a driver's library."""

from vlfleet.hardware.gpus import has_gpu

__all__ = ["has_gpu"]
