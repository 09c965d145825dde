"""The measurements of `make bench`, each with a comparison from the same run, as the machines are shared and noisy."""
