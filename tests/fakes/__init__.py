"""One fake engine for every test: it speaks vLLM's API and can be told to misbehave."""

from tests.fakes.launch import FakeEngine

__all__ = ["FakeEngine"]
