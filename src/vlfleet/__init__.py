"""vlfleet: turns a Qwen-VL checkpoint and whatever GPUs are at hand into a running, balanced, watched service."""

__version__ = "0.1.0"
