"""The costs of a store beside those of MLflow with PostgreSQL and of trackio: `python -m benchmarks.store_peers`."""
