"""What runs where, and why: pure functions of what the machine has and what is asked for."""
