"""Durable execution inside a Python process: the public names. Start with `SqliteProvider`, `Runtime` and `Client`."""

__version__ = "0.3.0"
