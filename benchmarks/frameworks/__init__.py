"""The measurements of docs/frameworks.md: see `benchmarks.frameworks.__main__`."""
