"""A fleet: the replicas that serve one model, started, watched, restarted and stopped."""
