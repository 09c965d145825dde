"""The command `lossguard-server`: collector, dashboard, store and replay, each from its own package."""
