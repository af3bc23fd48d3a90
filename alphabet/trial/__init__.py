"""The server tried from outside, as any user would: the demo and the benchmarks."""
