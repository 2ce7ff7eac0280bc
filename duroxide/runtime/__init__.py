"""Runs turns and activities of one store in this process."""
