"""The collector: takes reports, stores them, detects spikes and orders what to do about them."""
