"""What is measured of each store, and at which sizes."""

from dataclasses import dataclass

METRICS = ("loss", "grad_norm", "log_z", "log_z_max", "z_loss", "lr", "tokens", "step_seconds")
NUM_CLIENTS = 8
"""Runs that report at once."""
CALLS = 20
"""Requests for the same page."""

REPORT, BYTES, CURVE, PAGE, SEARCH, DELETION = "report", "bytes", "curve", "page", "search", "deletion"
UNITS = {REPORT: "us", BYTES: "bytes", CURVE: "us", PAGE: "ms", SEARCH: "ms", DELETION: "ms"}
"""All costs but the bytes are CPU time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of what is stored."""

    reports: int = 400
    """Reports of one step."""
    steps: int = 10_000
    """Of the run that is weighed and read."""
    runs: int = 10_000
    """Of the list."""
    deleted: int = 100
    """Runs that are deleted."""
    deleted_steps: int = 500
    """Steps of each of them."""

    def names(self) -> dict[str, str]:
        """What each cost is of."""
        return {
            REPORT: f"a report of one step, {NUM_CLIENTS} runs at once: server and database",
            BYTES: f"a step in the store, a run of {self.steps:,} steps",
            CURVE: "a step of one metric of that run, read whole: server, database and client",
            PAGE: f"a page of 50 of {self.runs:,} runs",
            SEARCH: "the same of those with a learning rate of 0.01, every fifth",
            DELETION: f"deleting a run of {self.deleted_steps} steps, {self.deleted} in one command",
        }


Found = dict[str, float]
"""By cost; what a project does not have is missing."""
