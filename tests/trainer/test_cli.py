"""The command line in its own process."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.trainer.command import command, environment, run_command
from tests.trainer.small import logged
from tests.waiting import eventually
from trainer.cli import app


@pytest.mark.slow
def test_a_run_prints_its_progress_in_plain_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    done = run_command(tmp_path, "--steps", "20", "--run-id", "r", "--fault", "corrupted_batches@12x3", "--skip", "4:6")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "run r: tiny, 0.01 M parameters, 20 steps of 64 tokens"
    assert [line.split()[1] for line in lines if line.startswith("step")] == ["0/20", "10/20", "19/20"]
    assert lines[-3].startswith("finished 20 steps: loss ")
    assert " tokens per second; MFU " in lines[-2]
    assert " tokens per parameter (Chinchilla: about 20); " in lines[-1]
    assert [metrics["batch_index"] for metrics in logged(tmp_path / "out", "r").values()] == [*range(4), *range(6, 22)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_the_same_run_id_continues_exactly(
    tmp_path: Path, number: signal.Signals
) -> None:
    arguments = ["--run-id", "r", "--steps", "100000", "--set", "optimizer.decay_steps=400"]
    stopped = subprocess.Popen(
        command(tmp_path, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    checkpoint = tmp_path / "out/trainer/r/checkpoints/step-000000010"
    assert eventually(lambda: checkpoint.exists() or stopped.poll() is not None, 120.0)
    assert stopped.poll() is None
    stopped.send_signal(number)
    output, errors = stopped.communicate(timeout=120)
    assert (stopped.returncode, errors) == (128 + number, "")
    num_steps = len(logged(tmp_path / "out", "r"))
    assert output.splitlines()[-1] == (
        f"{number.name}: the run stopped before step {num_steps}; "
        f"LOSSGUARD_RUN_ID=r with the same command resumes it from step {num_steps}"
    )
    (spool,) = (tmp_path / "out/trainer/r").glob("*.spool")
    assert '"finish":"interrupted"' in spool.read_text().replace(" ", "")

    goal = str(num_steps + 10)
    resumed = run_command(tmp_path, *arguments, "--steps", goal)
    assert f"resumed from the checkpoint of step {num_steps}\n" in resumed.stdout
    whole = run_command(tmp_path, *arguments, "--steps", goal, "--run-id", "whole")
    assert (resumed.returncode, whole.returncode) == (0, 0)
    halves, one = logged(tmp_path / "out", "r"), logged(tmp_path / "out", "whole")
    assert [halves[step]["loss"] for step in halves] == [one[step]["loss"] for step in one]


MISTAKES = {
    "There is no recipe 'nope'; choose one of": ["--recipe", "nope"],
    "model.widht is not a field": ["--set", "model.widht=3"],
    "There is no data at /nowhere/at/all": ["--data", "/nowhere/at/all"],
    "data.tokenizer = 'bpe:100' cannot be used: it must be bpe:256 or more": ["--tokenizer", "bpe:100"],
    "The data is too short: ": ["--set", "data.batch_size=100000"],
    "There is no fault 'x'": ["--fault", "x@3"],
    "The range '5:3' cannot be skipped": ["--skip", "5:3"],
    "url='nonsense' is not the address of a collector": ["--url", "nonsense"],
    "mode='sometimes' must be online, offline or off": ["--mode", "sometimes"],
    "/proc/nowhere cannot hold runs (No such file or directory)": ["--out", "/proc/nowhere"],
    "/proc/version cannot hold runs (Not a directory): choose another folder with --out.": ["--out", "/proc/version"],
    "/proc/nowhere/trainer/": ["--out", "/proc/nowhere", "--mode", "off"],
}


@pytest.mark.parametrize("sentence", MISTAKES)
def test_what_cannot_be_used_is_reported_in_one_sentence_with_exit_code_2(
    tmp_path: Path, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in os.environ.keys() - environment().keys():
        monkeypatch.delenv(name)
    words = command(tmp_path, "--steps", "3", *MISTAKES[sentence])[3:]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_restore_that_is_not_exact_stops_the_run_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = command(tmp_path, "--run-id", "r", "--mode", "offline")[3:]
    assert CliRunner().invoke(app, [*words, "--steps", "5"]).exit_code == 0
    monkeypatch.setattr(torch.optim.AdamW, "load_state_dict", lambda *_: None)
    done = CliRunner().invoke(app, [*words, "--steps", "9"])
    assert done.exit_code == 1
    assert done.stderr.startswith("optimizer differs from the checkpoint of step 5: ")
    assert len(done.stderr.splitlines()) == 1
