"""The switches of the lab over several seeds: means with standard errors.

python -m trainer lab [NAME ..] --seeds 3
"""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from trainer.lab.estimate import Estimate

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


def show_means(results: Sequence[Mapping[str, object]], console: Console) -> None:
    """One row per recipe. `results` are the JSON objects of the runs: a number that is not finite is a text."""
    table = Table()
    for name in ("recipe", *COLUMNS.values()):
        table.add_column(name)
    for recipe in dict.fromkeys(str(each["recipe"]) for each in results):
        own = [each for each in results if each["recipe"] == recipe]
        table.add_row(recipe, *(_over_seeds([each[field] for each in own]) for field in COLUMNS))
    console.print(table)
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(each["seed"] for each in results))
    console.print(f"Mean ± standard error over the seeds {seeds}.")


def _over_seeds(values: Sequence[object]) -> str:
    if any(value is None for value in values):
        return "-"
    return str(Estimate.of(float(str(value)) for value in values))
