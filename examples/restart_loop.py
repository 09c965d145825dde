"""A training loop that only knows how to be started again: `lossguard.restart` tells it where, and without which data.

    lossguard launch --restart-with script -- python examples/restart_loop.py --out out/restart --steps 300

Whatever starts it again when it leaves with exit code 75 will do: torchrun --max-restarts, a scheduler's requeue, or
`until python examples/restart_loop.py ..; do test $? = 75 || break; done` with LOSSGUARD_RUN_ID set.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import lossguard

EVERY = 25
"""Steps between two checkpoints."""


def batch_at(index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Batch `index`, always the same one."""
    generator = torch.Generator().manual_seed(index)
    inputs = torch.randn(32, 16, generator=generator)
    return inputs, inputs.sum(1, keepdim=True).sin()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def on_disk() -> dict[int, Path]:
        return {int(path.stem): path for path in options.out.glob("*.pt")}

    run = lossguard.init("restart-loop", total_steps=options.steps)
    plan = lossguard.restart(run)
    for late in plan.discarded(on_disk()):
        on_disk()[late].unlink()
    step, batch = plan.newest(on_disk()) or 0, 0
    if step:
        saved = torch.load(on_disk()[step])
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        batch = saved["batch"]
    plan.resumed(step)
    plan.saved(on_disk())
    while step < options.steps:
        batch = plan.next_free(batch)
        inputs, targets = batch_at(batch)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / options.steps) * plan.lr_scale
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        run.log(step, loss=loss, batch_index=batch)
        step, batch = step + 1, batch + 1
        if step % EVERY == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "batch": batch}
            torch.save(state, options.out / "partial")
            (options.out / "partial").rename(options.out / f"{step}.pt")
            plan.saved(on_disk())
        plan.check()
    run.finish()


if __name__ == "__main__":
    main()
