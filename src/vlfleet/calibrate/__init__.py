"""Measures this machine for the planner: CPU costs, memory terms and speed of the vLLM that is installed here."""
