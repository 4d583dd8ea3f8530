"""Speed, memory and large sizes, measured by hand: `python -m benchmarks --help`. Nothing here is timed inside tests."""
