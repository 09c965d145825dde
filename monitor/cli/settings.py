"""python -m monitor settings: the settings that the collector reads from the environment."""

import typer

from monitor.settings import table


def print_settings() -> None:
    """Print the settings in the environment as a Markdown table."""
    typer.echo(table())
