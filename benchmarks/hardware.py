"""What sampling the hardware costs, and what measuring the further signals adds to a training step.

    python -m benchmarks.hardware [--seconds 90] [--interval 15] [--gpus 8]
    python -m benchmarks.hardware --signals [--steps 15]

Sampling: the CPU time of a thread that does all that sampling takes (look, encode, post to a local server, read the
answer) at the interval of LOSSGUARD_HARDWARE, over `--seconds` of wall time; the first look, which imports psutil,
stands apart. `--gpus` adds GPUs of a fake NVML, whose calls are Python and not the driver's: it measures our part of
them.

Signals: the CPU time of each of them beside that of a training step of the `tiny` recipe, in one process.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.sink import sink
from lossguard.client.client import Client
from lossguard.delivery import hardware
from lossguard.delivery.hardware import GpuReader, HardwareSampler
from lossguard.torch import LayerGradNorms, UpdateNorm, max_attention_logit
from tests.lossguard.delivery.nvml import FakeNvml
from trainer.components import build_components
from trainer.config import load_recipe
from trainer.signals import ATTENTION_EVERY, SIGNALS
from trainer.train import training_step


def cpu_of_sampling(seconds: float, interval: float) -> tuple[float, float, int]:
    """(CPU seconds of the first look, of all later ones, number of samples that were sent)."""
    result: list[tuple[float, float, int]] = []

    def sample() -> None:
        with sink() as running, Client(running.url) as client, tempfile.TemporaryDirectory() as folder:
            sampler = HardwareSampler(Path(folder), interval=interval, newest_step=lambda: 1)
            client.request("POST", "/runs/r/reports", {"segment": 0, "steps": []})  # the connection is open
            begin = time.thread_time()
            sampler.look()
            first, spent, sent = time.thread_time() - begin, 0.0, 0
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(interval)
                begin = time.thread_time()
                sampler.look()
                if samples := sampler.waiting():
                    client.request("POST", "/runs/r/reports", {"segment": 0, "steps": [], "hardware": samples})
                    sampler.sent(samples)
                    sent += len(samples)
                spent += time.thread_time() - begin
            result.append((first, spent, sent))

    thread = threading.Thread(target=sample)
    thread.start()
    thread.join()
    return result[0]


def sampling(seconds: float, interval: float, gpus: int) -> None:
    if gpus:
        vars(hardware)["GpuReader"] = lambda: GpuReader(FakeNvml(gpus))
    first, spent, sent = cpu_of_sampling(seconds, interval)
    share = spent / seconds
    print(
        f"sampling every {interval:g} s for {seconds:g} s, {gpus} GPUs: {share:.4%} of a core ({spent * 1e3:.1f} ms "
        f"for {sent} samples; the first look took {first * 1e3:.1f} ms more, once)"
    )


def signals(num_steps: int) -> None:
    torch.set_num_threads(1)  # idle threads that spin would count as work
    recipe = load_recipe("tiny", ["device=cpu"])
    components = build_components(recipe)
    batch = components.batches[0]
    step = median_cpu(lambda: training_step(recipe, components, batch, None), num_steps)
    model, attention = components.model, recipe.model
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    updates, layer_norms = UpdateNorm(torch.optim.SGD(model.parameters(), lr=0.0)), LayerGradNorms(model)
    shape = (recipe.data.batch_size, attention.heads, attention.context, attention.width // attention.heads)
    query = torch.randn(shape)

    def measure_update() -> None:
        updates._begin()
        updates._end()

    looks: dict[str, Callable[[], object]] = {
        "update_norm": measure_update,
        "layer_norms": layer_norms.measure,
        "attention": lambda: [max_attention_logit(query, query, is_causal=True) for _ in range(attention.layers)],
    }
    print(f"training step of the tiny recipe: {step * 1e3:.1f} ms of CPU time (median of {num_steps})")
    for name in SIGNALS:
        seconds = median_cpu(looks[name], num_steps) / (ATTENTION_EVERY if name == "attention" else 1)
        print(f"{name}: {seconds * 1e3:.3f} ms a step, {seconds / step:.2%}")


def median_cpu(call: Callable[[], object], times: int) -> float:
    """CPU seconds of all threads."""
    spent = []
    for _ in range(times + 2):
        begin = time.process_time()
        call()
        spent.append(time.process_time() - begin)
    return statistics.median(spent[2:])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hardware", description="What does watching cost?")
    parser.add_argument("--seconds", type=float, default=90.0, help="how long to sample")
    parser.add_argument("--interval", type=float, default=15.0, help="seconds between two samples")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of a fake NVML")
    parser.add_argument("--signals", action="store_true", help="the further signals of a step instead")
    parser.add_argument("--steps", type=int, default=15, help="calls of each")
    options = parser.parse_args(arguments)
    if options.signals:
        signals(options.steps)
    else:
        sampling(options.seconds, options.interval, options.gpus)


if __name__ == "__main__":
    main()
