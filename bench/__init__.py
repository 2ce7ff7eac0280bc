"""The benchmarks: `python -m bench`. Not installed with the package."""
