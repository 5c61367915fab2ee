"""Watches a fleet: samples of its state, alerts, history, reports. It reads, and never touches what serves."""
