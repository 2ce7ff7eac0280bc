"""Random programs: made from a seed, run by the same lines under this package and under the reference."""
