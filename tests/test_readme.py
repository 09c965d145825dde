"""What the README says is true: its code runs, its links and targets exist."""

import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import lossguard
from lossguard.torch import Checkpoints

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_loop_of_the_readme_trains_and_trains_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks("python")
    assert "until=10_000" in code
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


def test_the_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+)", README):
        assert re.search(rf"^{target}:.*## ", makefile, flags=re.MULTILINE), target
