"""Small orchestration programs, what the reference made of them, and how the two are compared."""
