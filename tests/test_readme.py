"""What the README says is true: its code runs, its figures are measured, its links and targets exist."""

import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import lossguard
from lossguard.torch import Checkpoints, Drawn
from tests.lossguard.scripted import ScriptedRun, rollback

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BATCHES = (ROOT / "docs" / "batches.md").read_text()


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def test_the_readme_is_one_page() -> None:
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize("accumulate", [False, True])
def test_the_loop_of_the_readme_trains_and_trains_again(
    accumulate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = blocks("python")
    if accumulate:
        before, after = code[: code.index("for step")], code[code.index("run.finish()") :]
        code = before + blocks("python", BATCHES)[0] + after
    assert "until=10_000" in code
    assert ("accumulate=2" in code) == accumulate
    monkeypatch.setenv("LOSSGUARD_DIR", str(tmp_path / "spool"))
    monkeypatch.delenv("LOSSGUARD_URL", raising=False)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(16, 8), torch.nn.Linear(8, 16))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    tokens = torch.randint(16, (12, 9))
    names = {
        "torch": torch,
        "config": {"lr": 0.1},
        "model": model,
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6),
        "loader": DataLoader(TensorDataset(tokens[:, :-1], tokens[:, 1:]), batch_size=2, shuffle=True),
        "cross_entropy": lambda logits, targets: functional.cross_entropy(logits.flatten(0, 1), targets.flatten()),
    }
    monkeypatch.chdir(tmp_path)
    for started in (1, 2):
        exec(code.replace("10_000", "3"), names)
        assert len(list(tmp_path.rglob("*.spool"))) == len(list(tmp_path.glob("out/*"))) == started
        assert (tmp_path / "final.pt").exists()


def with_diff(code: str, diff: str) -> str:
    """`code` with the lines of a diff without numbers: it has them in this order, up to comments and quotes."""

    def plain(line: str) -> str:
        return line.partition("  #")[0].partition(" # ")[0].rstrip().replace("'", '"')

    lines, at = code.splitlines(), 0
    for sign, line in ((each[:1], each[1:]) for each in diff.splitlines() if each != ".."):
        if sign == "+":
            lines.insert(at, line)
            at += 1
        else:
            at = next(k for k in range(at, len(lines)) if plain(lines[k]) == plain(line)) + (sign != "-")
            if sign == "-":
                del lines[at]
    return "\n".join(lines)


SCRIPT = (ROOT / "tests" / "lossguard" / "drawing_loop.py").read_text()
NUM, BATCH, BLOCK, ACCUMULATE = 2_000_000, 4, 16, 2
BAD, BAD_TOKEN = range(60, 63), 32


def corpus(num: int, seed: int) -> Any:
    """(num,) tokens below 32, each 1 or 2 above the one before it, modulo 32."""
    rises = np.random.default_rng(seed).choice([1, 2], size=num, p=[0.7, 0.3])
    return (np.cumsum(rises) % 32).astype(np.uint16)


@pytest.mark.slow(10)
def test_the_diff_of_the_docs_guards_a_loop_that_draws_its_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of the corpus are corrupted. After the rollback none of them is trained, and the model is a clean one."""
    (diff,) = blocks("diff", BATCHES)
    assert sum(line.startswith("+") for line in diff.splitlines()) == 8
    guarded = with_diff(SCRIPT, diff)
    offsets = Drawn(lambda: torch.randint(NUM - BLOCK, (BATCH,)))
    for name in ("clean", "corrupted"):
        tokens = corpus(NUM, 0)
        for number in range(BAD.start * ACCUMULATE, BAD.stop * ACCUMULATE) if name == "corrupted" else ():
            for offset in offsets[number].tolist():
                tokens[offset : offset + BLOCK + 1] = BAD_TOKEN
        (tmp_path / name).mkdir()
        tokens.tofile(tmp_path / name / "train.bin")
        corpus(100_000, 1).tofile(tmp_path / name / "val.bin")

    num_bad: list[int] = []  # corrupted windows of each micro-batch
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: (
            num_bad.append(int((inputs[0] == BAD_TOKEN).any(1).sum()))
            if isinstance(module, torch.nn.Embedding) and module.training
            else None
        )
    )
    held_out: dict[str, list[float]] = {"clean": [], "corrupted": []}
    order = rollback(rewind_to=BAD.start - 1, skip_from=BAD.start, skip_to=BAD.stop)
    for seed, name in product(range(3), held_out):
        run = ScriptedRun({} if name == "clean" else {BAD.stop + 6: order})
        monkeypatch.setattr(lossguard, "init", lambda *_, run=run, **__: run)
        for variable, value in (("DATA", tmp_path / name), ("OUT", tmp_path / f"{name}-{seed}"), ("SEED", seed)):
            monkeypatch.setenv(variable, str(value))
        num_bad.clear()
        names: dict[str, Any] = {}
        exec(guarded, names)
        held_out[name].append(names["held_out"])
        assert run.events == []
    hook.remove()
    assert (run.recorded[1][:2], run.recorded[1][3]["compared"]) == (("rollback", 50), True)
    left = (BAD.stop + 5) * ACCUMULATE  # micro-batches before the rollback
    assert (sum(num_bad[:left]), sum(num_bad[left:])) == (len(BAD) * ACCUMULATE * BATCH, 0)
    difference = np.mean(held_out["corrupted"]) - np.mean(held_out["clean"])
    assert abs(difference) < 2 * np.std(held_out["clean"]), held_out


def test_the_loop_of_the_readme_without_its_scheduler_is_refused_with_the_line_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it a cosine schedule was past its end after a rollback, and nothing said so."""
    (code,) = blocks("python")
    (line,) = re.findall(r"checkpoints = Checkpoints\(.*\)", code)
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    run = lossguard.Run(id="r")
    names = {"Checkpoints": Checkpoints, "run": run, "model": model, "optimizer": optimizer, "scheduler": scheduler}
    exec(line.replace(", scheduler=scheduler", ""), names)
    with pytest.raises(lossguard.ConfigurationError) as refused:
        next(lossguard.Guard(run, checkpoints=names["checkpoints"]).steps([0], until=1))  # type: ignore[arg-type]
    assert line.partition("model=")[2] in str(refused.value)


def test_the_figures_of_the_readme_are_those_that_its_pages_measured() -> None:
    detection, drill, frameworks, benchmarks = (
        (ROOT / "docs" / f"{name}.md").read_text() for name in ("detection", "drill", "frameworks", "benchmarks")
    )
    (clean, found, of, alarms) = re.findall(
        r"\*\*all, by detected_step\*\* \| \| (\d+) clean \| \*\*(\d+)/(\d+) = \d+%\*\* \| \*\*(\d+):", detection
    )[0]
    assert (f"{found} of {of}, with no false alarm in {int(clean):,} clean rows" in README, alarms) == (True, "0")
    ((spikes, percent, incidents, actions, needless),) = re.findall(
        r"\| \*\*all\*\* \| \d+/(\d+) = (\d+)% \| ([\d.]+) \| ([\d.]+) \| (\d+) \|", detection
    )
    assert f"{needless} of {int(spikes):,} spikes that recover" in README
    assert f"{percent} %, with {incidents} false incidents and {actions} false actions per 10,000 rows" in README
    ends = re.findall(r"^\| [123] \| 20 \|.*\| ([+-][\d.]+) % \|", drill, re.MULTILINE)
    assert "{}, {} and {} %".format(*ends) in README
    assert set(re.findall(r"600 of \d+", README)) == {"600 of 600"}
    assert (
        "| steps equal to a plain run without the skipped batches | 600 of 600 | 600 of 600 | 600 of 600 |"
        in frameworks
    )
    (step,) = re.findall(r"\| overhead on the median training step \| (.*?) \|", benchmarks)
    own = [float(ms) for ms in re.findall(r"([\d.]+) ms, \+", frameworks)]
    assert f"{step}; in a framework {min(own):.1f} to {max(own):.1f} ms of about 40" in README


def test_the_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_make_targets_of_the_readme_and_of_the_page_of_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = (ROOT / "docs" / "reference" / "commands.md").read_text()
    for target in re.findall(r"make ([a-z-]+)", README) + re.findall(r"`make ([a-z-]+)", commands):
        assert re.search(rf"^{target}:.*## ", makefile, flags=re.MULTILINE), target
