"""`python -m trainer`: see trainer.cli."""

from lossguard.interrupts import quiet_interrupts

with quiet_interrupts():
    from trainer.cli import app

    app(prog_name="python -m trainer")
