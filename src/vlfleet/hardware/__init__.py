"""What this machine has: `has_gpu` knows without a driver's library, `probe.probe` asks it."""

from vlfleet.hardware.gpus import has_gpu

__all__ = ["has_gpu"]
