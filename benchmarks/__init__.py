"""What `make bench` measures: each figure beside its comparison in the same run (the machines are shared and noisy)."""
