"""What the README says is true: its code runs, its links and targets exist."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

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
    tokens = torch.randint(16, (3, 2, 9))
    names = {
        "torch": torch,
        "config": {"lr": 0.1},
        "model": model,
        "optimizer": torch.optim.AdamW(model.parameters(), lr=0.1),
        "batches": [SimpleNamespace(inputs=row[:, :-1], targets=row[:, 1:]) for row in tokens],
    }
    monkeypatch.chdir(tmp_path)
    for started in (1, 2):
        exec(code.replace("10_000", "3"), names)
        assert len(list(tmp_path.rglob("*.spool"))) == len(list(tmp_path.glob("out/*"))) == started


def test_the_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+)", README):
        assert re.search(rf"^{target}:.*## ", makefile, flags=re.MULTILINE), target
