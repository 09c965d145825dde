"""`python -m trainer`: see trainer.cli."""

try:
    from trainer.cli import app

    app(prog_name="python -m trainer")
except KeyboardInterrupt:  # while it imports
    raise SystemExit(130) from None
