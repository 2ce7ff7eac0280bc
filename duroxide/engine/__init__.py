"""The engine: one turn of one orchestration, from inbox to outbox. Pure: no clock, no threads, no I/O."""
