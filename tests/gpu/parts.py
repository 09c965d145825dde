"""The parts of `python -m tests.gpu`. Each raises an AssertionError if something is wrong, and returns its figures.

Shapes: B sequences, T positions, V vocabulary.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

import lossguard
from benchmarks.frameworks import Job as FrameworkJob
from benchmarks.frameworks import hf
from benchmarks.harness import interleaved, measured_by
from benchmarks.loss import ours, plain_with_z_loss
from lossguard import OrderKind, Skip
from lossguard.delivery.hardware import GpuReader
from lossguard.torch import Checkpoints, Gate, causal_lm_loss
from tests.lossguard.scripted import ScriptedRun, new_order
from trainer.config import ModelConfig, load_recipe
from trainer.model import GPT
from trainer.train import Job, train

SHAPES = {
    "cuda": ModelConfig(layers=8, heads=8, width=512, context=256),
    "cpu": ModelConfig(layers=2, width=32, context=16),
}
BATCH = {"cuda": 16, "cpu": 4}
LOSS_SHAPES = {"cuda": (8, 1024, 50257), "cpu": (2, 32, 4096)}
ROUNDS = {"cuda": 60, "cpu": 6}
WARM_UP = 3
ROLLBACK = new_order(OrderKind.ROLLBACK, rewind_to=7, skip_from=5, skip_to=9)
EVERY, NUM_STEPS, ORDER_AT = 5, 30, 15
Figures = dict[str, Any]
Seen = list[dict[str, float]]


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has done it."""
    synchronize(device)
    began = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - began


def train_recipe(device: torch.device, folder: Path, steps: int, **job: Any) -> tuple[Seen, dict[str, torch.Tensor]]:
    """Train the recipe `tiny`: the metrics of every step of the line that lasted, and the final weights."""
    settings = [f"steps={steps}", f"device={device.type}", f"checkpoint.every={EVERY}", "optimizer.decay_steps=60"]
    settings += ["evaluate_every=0", "probe_every=0", "optimizer.warmup_steps=4", "data.batch_size=8"]
    if device.type == "cpu":
        settings += ["model.layers=2", "model.width=32", "model.context=16"]
    seen: dict[int, dict[str, float]] = {}

    def note(step: int, batch: int, metrics: dict[str, float]) -> None:
        kept = {name: metrics[name] for name in ("loss", "grad_norm", "log_z", "lr", "step_seconds")}
        seen[step] = kept | {"batch": batch}

    given: dict[str, Any] = {"directory": folder, "run_id": "r", "mode": "offline", "quiet": True, "on_step": note}
    result = train(load_recipe("tiny", settings), Job(**(given | job)))
    return [seen[step] for step in sorted(seen)], result.components.model.state_dict()


def recipe(device: torch.device, folder: Path) -> Figures:
    """The recipe in bfloat16 (on the CPU in float32) learns."""
    dtypes: set[torch.dtype] = set()
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: dtypes.add(output.dtype) if isinstance(module, nn.Linear) else None
    )
    try:
        seen, _ = train_recipe(device, folder, 60)
    finally:
        hook.remove()
    expected = torch.bfloat16 if device.type == "cuda" else torch.float32
    assert expected in dtypes, f"the layers computed in {dtypes}, not in {expected}"
    first, last = seen[0]["loss"], seen[-1]["loss"]
    assert last < first - 0.5, f"the loss went from {first} to {last}"
    step_ms = 1e3 * statistics.median(each["step_seconds"] for each in seen[10:])
    return {"dtype": str(expected)[6:], "first_loss": first, "last_loss": last, "step_ms": step_ms}


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def assert_equal(one: tuple[Seen, dict[str, torch.Tensor]], other: tuple[Seen, dict[str, torch.Tensor]]) -> None:
    """Equal to the last bit: the metrics of every step, without its duration, and the weights."""
    pairs = list(zip(*([each | {"step_seconds": 0.0} for each in seen] for seen, _ in (one, other)), strict=True))
    differing = [number for number, (mine, theirs) in enumerate(pairs) if mine != theirs]
    assert not differing, f"{len(differing)} of {len(pairs)} steps differ, the first one is {differing[0]}"
    assert all(torch.equal(value, other[1][name]) for name, value in one[1].items()), "the weights differ"


def resume(device: torch.device, folder: Path) -> Figures:
    """15 steps and 15 more in another run of the loop are 30, bit for bit."""
    with deterministic():
        whole = train_recipe(device, folder / "whole", NUM_STEPS)
        first, _ = train_recipe(device, folder / "halves", NUM_STEPS // 2)
        torch.manual_seed(99)  # a new process would not have our generator either
        second, weights = train_recipe(device, folder / "halves", NUM_STEPS)
        assert_equal(whole, (first + second, weights))
    return {"equal_steps": NUM_STEPS}


def rollback(device: torch.device, folder: Path) -> Figures:
    """A rollback that skips batches is bit for bit a run that skips them from the start."""
    with deterministic():
        run = ScriptedRun({ORDER_AT: ROLLBACK})
        ordered = train_recipe(device, folder / "ordered", NUM_STEPS, run=run)
        assert not run.orders, "the order was not taken"
        skipped = train_recipe(device, folder / "skipped", NUM_STEPS, skips=[Skip(5, 9)])
        assert_equal(ordered, skipped)
    return {"equal_steps": NUM_STEPS}


def new_model(device: torch.device, **options: Any) -> tuple[nn.Module, torch.optim.Optimizer, Callable[..., Any]]:
    """A GPT on the device, its optimizer, and the part of a step before the optimizer's: (loss, grad norm)."""
    torch.manual_seed(0)
    shape = SHAPES[device.type]
    model = GPT(shape).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, **options)
    tokens_BT = torch.randint(shape.vocab_size, (BATCH[device.type], shape.context + 1), device=device)

    def backward() -> tuple[torch.Tensor, torch.Tensor]:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits_BTV = model(tokens_BT[:, :-1])
        terms = causal_lm_loss(logits_BTV, tokens_BT[:, 1:])
        terms.loss.backward()  # type: ignore[no-untyped-call]
        return terms.cross_entropy.detach(), nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    return model, optimizer, backward


def memory(device: torch.device, folder: Path) -> Figures:
    """Checkpoints in host memory: the loop's wait for one, and a load, which brings the weights back."""
    model, optimizer, backward = new_model(device)
    backward()
    optimizer.step()
    checkpoints = Checkpoints(folder, memory=2, memory_every=1, model=model, optimizer=optimizer)
    saves = [seconds_of(lambda: checkpoints.save_in_memory(0, {}), device) for _ in range(4)]
    kept = [parameter.detach().clone() for parameter in model.parameters()]
    backward()
    optimizer.step()
    load = seconds_of(lambda: checkpoints.load(0), device)
    assert all(map(torch.equal, kept, model.parameters())), "the weights are not those that were saved"
    megabytes = 12e-6 * sum(parameter.numel() for parameter in model.parameters())
    return {"megabytes": megabytes, "save_ms": 1e3 * statistics.median(saves[1:]), "load_ms": 1e3 * load}


def loss(device: torch.device, folder: Path) -> Figures:
    """causal_lm_loss with z-loss and log Z beside torch's with a z-loss, forward and backward: time and memory."""
    shape, figures = LOSS_SHAPES[device.type], {}
    for dtype in (torch.float32, torch.bfloat16):
        logits_BTV = torch.randn(shape, device=device).to(dtype).requires_grad_()
        targets_BT = torch.randint(shape[-1], shape[:2], device=device)
        losses = {"ours": ours(targets_BT), "torch": plain_with_z_loss(targets_BT)}

        def step(of: Callable[[torch.Tensor], torch.Tensor], logits_BTV: torch.Tensor = logits_BTV) -> None:
            logits_BTV.grad = None
            of(logits_BTV).backward()  # type: ignore[no-untyped-call]

        values = [each(logits_BTV).item() for each in losses.values()]
        assert abs(values[0] - values[1]) < 1e-2, f"the losses are {values}"
        ways = [lambda _, of=each: (seconds_of(lambda: step(of), device),) for each in losses.values()]
        found = [
            statistics.median(each for (each,) in times) for times in interleaved(ways, ROUNDS[device.type] // 3, 1)
        ]
        figures[str(dtype)[6:]] = {"time_ratio": found[0] / found[1], "torch_ms": 1e3 * found[1]}
        if device.type == "cuda":
            used = [_memory_of(partial(step, each), logits_BTV) for each in losses.values()]
            figures[str(dtype)[6:]] |= {"memory_ratio": used[0] / used[1], "torch_mib": used[1]}
    return figures


def _memory_of(call: Callable[[], object], logits_BTV: torch.Tensor) -> float:
    """MiB that the device needs at most for it."""
    logits_BTV.grad = None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def gate(device: torch.device, folder: Path) -> Figures:
    """A step with the gate waits for nothing (CUDA says so), and what it adds to the plain step."""
    figures: Figures = {}
    for fused in (True, False):
        _, optimizer, backward = new_model(device, fused=fused, foreach=not fused)
        guarding = Gate([optimizer], run=lossguard.Run(id="r"), tell=print)

        def gated(guarding: Gate = guarding, backward: Callable[..., Any] = backward) -> None:
            guarding.step(*backward())

        def plain(optimizer: Any = optimizer, backward: Callable[..., Any] = backward) -> None:
            backward()
            optimizer.step()

        for _ in range(20):
            gated()
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
            try:
                for _ in range(20):
                    gated()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        figures["fused" if fused else "foreach"] = _overhead(plain, gated, device)
    return figures


def guard(device: torch.device, folder: Path) -> Figures:
    """Measure what a guard and `run.log` add to the step."""
    model, optimizer, backward = new_model(device)
    run = lossguard.init("gpu", directory=folder, mode="offline")
    checkpoints = Checkpoints(folder / "checkpoints", model=model, optimizer=optimizer)
    boundaries = lossguard.Guard(run, checkpoints=checkpoints, every=10**9).steps(range(10**9), until=10**9)

    def plain() -> None:
        value, norm = backward()
        optimizer.step()
        torch.stack([value, norm]).tolist()  # a loop that shows its loss waits for it, too

    def guarded() -> None:
        step, _ = next(boundaries)
        value, norm = backward()
        optimizer.step()
        run.log(step, **dict(zip(("loss", "grad_norm"), torch.stack([value, norm]).tolist(), strict=True)), lr=1e-4)

    figures = _overhead(plain, guarded, device)
    run.finish()
    return figures


def _overhead(plain: Callable[[], None], other: Callable[[], None], device: torch.device) -> Figures:
    ways = [lambda _, way=way: (seconds_of(way, device),) for way in (plain, plain, other)]
    found = interleaved(ways, ROUNDS[device.type], WARM_UP)
    first, again, added = (statistics.median(seconds for (seconds,) in each) for each in found)
    return {
        "step_ms": 1e3 * first,
        "added_percent": 100 * (added / first - 1),
        "noise_percent": 100 * (again / first - 1),
    }


def trainer_of_hf(device: torch.device, folder: Path) -> Figures:
    """Measure what a guard adds to the step of a Hugging Face Trainer: two runs, one after the other."""
    medians = []
    for guarded in (False, True):
        run = lossguard.init("gpu", directory=folder / "spool", mode="offline") if guarded else None
        job = FrameworkJob(folder=folder / str(guarded), steps=2 * ROUNDS[device.type], run=run, device=device.type)
        hf(job)
        ended = job.seconds[WARM_UP:]
        medians.append(statistics.median(later - earlier for earlier, later in pairwise(ended)))
    return {"step_ms": 1e3 * medians[0], "added_percent": 100 * (medians[1] / medians[0] - 1)}


def nvml(device: torch.device, folder: Path) -> Figures:
    """NVML's samples of the device, and the time that one takes."""
    reader = GpuReader()
    values = reader.read()["gpu0"]
    assert {"gpu_utilisation", "gpu_memory"} <= values.keys(), f"only {sorted(values)} were read"
    reads = [seconds_of(reader.read, device) for _ in range(10)]
    return values | {"read_ms": 1e3 * statistics.median(reads)}


def one_rank(device: torch.device, folder: Path) -> Figures:
    """FSDP2 on NCCL (on the CPU: gloo) with one rank: a rollback that skips equals a run that skips from the start."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    command = [sys.executable, *launcher, "-m", "tests.gpu.one_rank", device.type, str(folder)]
    found: Figures = json.loads(measured_by(command)[0])
    return found


PARTS: dict[str, Callable[[torch.device, Path], Figures]] = {
    "recipe": recipe,
    "resume": resume,
    "rollback": rollback,
    "memory": memory,
    "loss": loss,
    "gate": gate,
    "guard": guard,
    "hf": trainer_of_hf,
    "nvml": nvml,
    "one_rank": one_rank,
}
ONLY_ON_CUDA = {"nvml"}
