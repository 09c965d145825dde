"""`python -m db`: the commands of db.cli."""

from db.cli import app

if __name__ == "__main__":
    app()
