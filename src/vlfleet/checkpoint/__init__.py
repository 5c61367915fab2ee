"""Checkpoints on disk: found, and read by their headers alone. Nothing here imports torch."""

from vlfleet.checkpoint.headers import Tensor, read_header
from vlfleet.checkpoint.info import CheckpointInfo, preflight
from vlfleet.checkpoint.locate import locate

__all__ = ["CheckpointInfo", "Tensor", "locate", "preflight", "read_header"]
