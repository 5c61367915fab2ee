"""Engines run a model. Nothing outside this room knows their flags, endpoints or log lines."""
