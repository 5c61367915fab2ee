"""Prometheus rules and a Grafana dashboard, made from the alerts and a table of panels."""
