"""`python -m trainer`: see trainer.cli."""

from trainer.cli import app

app(prog_name="python -m trainer")
