import subprocess
import sys
from pathlib import Path

import pytest

from lossguard import Client
from lossguard.__main__ import main
from tests.lossguard.cli.small_runs import trained

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_asks_for_candidates(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert f"lossguard completion {shell} -- " in capsys.readouterr().out
    assert main(["completion", shell, "--", "ru"]) == 0
    assert capsys.readouterr().out == "runs\n"


@pytest.mark.slow(seconds=1)
def test_bash_completes_commands_and_the_runs_of_the_collector(collector_client: Client) -> None:
    trained(collector_client, "gpt-1", 1)
    script = f"""
        lossguard() {{ {sys.executable} -m lossguard "$@"; }}
        eval "$(lossguard completion bash)"
        COMP_WORDS=(lossguard show gp); COMP_CWORD=2; _lossguard; echo "${{COMPREPLY[@]}}"
        COMP_WORDS=(lossguard hol); COMP_CWORD=1; _lossguard; echo "${{COMPREPLY[@]}}"
        complete -p lossguard
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines() == ["gpt-1", "hold", "complete -o default -F _lossguard lossguard"]
