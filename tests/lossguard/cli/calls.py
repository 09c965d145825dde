"""Calls of `lossguard` in this process."""

import json
from typing import Any

import pytest

from lossguard.__main__ import main


class Cli:
    """`cli("show", "r")` is what the command prints. It must end with code 0."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> str:
        return self.fails(0, *arguments)

    def json(self, *arguments: str) -> Any:
        return json.loads(self._printed(0, *arguments, "--json")[0])

    def fails(self, code: int, *arguments: str) -> str:
        """What it prints, on standard error if there is anything. It must end with this code."""
        out, error = self._printed(code, *arguments)
        return error or out

    def _printed(self, code: int, *arguments: str) -> tuple[str, str]:
        self._capsys.readouterr()
        try:
            ended = main([*arguments])
        except SystemExit as left:  # argparse's own
            ended = int(left.code or 0)
        shown = self._capsys.readouterr()
        assert ended == code, shown
        return shown.out, shown.err
