"""Runs as a collector has them, for analysis: columns from its API, as pandas frames where pandas is installed."""
