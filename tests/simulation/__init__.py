"""The runtime's own code on green threads: one thread, one seed, simulated time, and everything that can go wrong on the way."""
