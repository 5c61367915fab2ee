"""Engines run a model. Each offers the same three functions; nothing outside `engine` knows their flags or log lines."""
