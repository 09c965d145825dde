import subprocess
import sys
from pathlib import Path

import pytest

from lossguard import Client
from lossguard.__main__ import main
from lossguard.cli.commands import completion
from lossguard.cli.commands.completion import candidates
from tests.lossguard.cli.small_runs import SmallRun, trained

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
    patient = "from lossguard import __main__ as m; from lossguard.cli.commands import completion as c; "
    patient += "c.SECONDS = 60; m.main()"
    script = f"""
        lossguard() {{ {sys.executable} -c "{patient}" "$@"; }}
        eval "$(lossguard completion bash)"
        COMP_WORDS=(lossguard show gp); COMP_CWORD=2; _lossguard; echo "${{COMPREPLY[@]}}"
        COMP_WORDS=(lossguard hol); COMP_CWORD=1; _lossguard; echo "${{COMPREPLY[@]}}"
        complete -p lossguard
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines() == ["gpt-1", "hold", "complete -o default -F _lossguard lossguard"]


def test_what_may_stand_next_is_offered(collector_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "SECONDS", 60.0)
    trained(collector_client, "gpt-1", 1, name="base")
    SmallRun(collector_client, "gpt-2", name="$(touch x)", project="a b")
    SmallRun(collector_client, "x-1", name="--yes", project="--json")
    for line, expected in (
        ("ro", ["rollback"]),
        ("show ", ["x-1", "gpt-2", "gpt-1", "base", "latest"]),
        ("show gpt", ["gpt-2", "gpt-1"]),
        ("show --json b", ["base"]),
        ("tail --interval 2 l", ["latest"]),
        ("runs --st", ["--state"]),
        ("runs --state fi", ["finished"]),
        ("runs --project ", ["gpt"]),
        ("series gpt-1 lo", ["loss"]),
        ("policy ba", ["base"]),
        ("policy gpt-1 ", ["show", "set", "unset"]),
        ("policy --collector u", ["unset"]),
        ("export gpt-1 --format ", ["parquet", "csv"]),
        ("completion z", ["zsh"]),
        ("launch -- python ", []),
        ("nonsense x", []),
        ("sync ", []),
    ):
        assert candidates(line.split(" ")) == expected, line
    assert len(candidates([""])) == len(candidates([])) > 15


def test_without_a_collector_commands_and_options_are_offered_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSGUARD_URL", "http://127.0.0.1:1")
    assert candidates(["show", ""]) == ["latest"]
    assert candidates(["show", "--js"]) == ["--json"]
