"""Measurements of one CUDA device, as one command: `python -m tests.gpu`."""
