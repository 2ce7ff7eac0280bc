"""`python -m tests.simulation`: see `run`."""
