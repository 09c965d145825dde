import subprocess
import sys
from importlib import metadata

import pytest

from lossguard.__main__ import main

LATE = {"urllib3", "http", "ssl", "email", "importlib.metadata", "lossguard.client.client", "lossguard.cli.connection"}


def test_a_launched_command_does_not_wait_for_what_asks_a_collector() -> None:
    code = "import sys; from lossguard.cli.arguments import parser_of; parser_of(['launch']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not LATE & set(done.stdout.split())


def test_without_a_command_the_help_is_printed_and_the_version_can_be_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    assert "list the runs of a collector" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"lossguard {metadata.version('lossguard')}\n")
