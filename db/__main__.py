"""`python -m db`: the commands of db.cli.app."""

from lossguard.run.interrupts import quiet_interrupts

if __name__ == "__main__":
    with quiet_interrupts():
        from db.cli.app import app

        app()
