"""What the machine of a run and its GPUs do, sampled every few seconds in a thread of its own."""
