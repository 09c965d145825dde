"""Metrics that somebody else's code logs: under which names, as which rows, and how they were made."""
