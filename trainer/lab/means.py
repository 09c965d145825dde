"""The switches of the lab over several seeds: means with standard errors.

python -m trainer lab [NAME ..] --seeds 3
"""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from trainer.estimate import Estimate
from trainer.lab.results import wide_console
from trainer.lab.switches import LabResult

COLUMNS = {
    "loss": "loss",
    "held_out_loss": "held-out",
    "perplexity": "perplexity",
    "bits_per_byte": "bits/byte",
    "bits_per_character": "bits/character",
    "grad_norm": "grad norm",
    "log_z": "log Z",
}
"""Field of a result -> heading."""


def show_means(results: Sequence[LabResult], console: Console | None = None) -> None:
    """One row per recipe."""
    console = console or wide_console()
    table = Table()
    for name in ("recipe", *COLUMNS.values()):
        table.add_column(name)
    for recipe in dict.fromkeys(each.recipe for each in results):
        own = [each for each in results if each.recipe == recipe]
        table.add_row(recipe, *(_over_seeds([getattr(each, field) for each in own]) for field in COLUMNS))
    console.print(table)
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(each.seed for each in results))
    console.print(f"Mean +- standard error over the seeds {seeds}.")


def _over_seeds(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return str(Estimate.of(known)) if known else "-"
