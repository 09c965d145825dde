"""`python -m db`: the commands of db.cli."""

from lossguard.interrupts import quiet_interrupts

if __name__ == "__main__":
    with quiet_interrupts():
        from db.cli import app

        app()
