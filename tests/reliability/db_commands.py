"""Calls commands of `python -m db`, one after the other, in one process.

    echo '["check", "--url", "sqlite:///store.db"]' | python -m tests.reliability.db_commands

Each line of the input is the words of a command; it is answered with a line [exit code, what the command printed].
"""

import json
import sys

from typer.testing import CliRunner

from db.cli.app import app

for line in sys.stdin:
    done = CliRunner().invoke(app, json.loads(line))
    print(json.dumps([done.exit_code, f"{done.output}{done.exception or ''}"]), flush=True)
