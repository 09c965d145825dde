"""What log Z costs: the loss of 32,768 tokens, forward and backward, of the Trainer and of `causal_lm_loss`.

python -m benchmarks.frameworks.log_z           CPU time, and memory beside the logits; each in a process of its own
"""

import resource
import subprocess
import sys
import time

import torch
from torch import Tensor
from transformers.loss.loss_utils import ForCausalLMLoss

from lossguard.torch import causal_lm_loss

BATCH, LENGTH, VOCABULARY = 4, 8192, 8192
MIB = 1 << 20


def trainers_loss(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    return ForCausalLMLoss(logits_BTV, labels_BT, VOCABULARY)


def loss_with_log_z(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    targets_BT = torch.nn.functional.pad(labels_BT, (0, 1), value=-100)[:, 1:]
    return causal_lm_loss(logits_BTV, targets_BT).loss


def measure(name: str) -> None:
    """Prints one line."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logits_BTV = torch.randn(BATCH, LENGTH, VOCABULARY, dtype=torch.bfloat16, requires_grad=True)
    labels_BT = torch.randint(VOCABULARY, (BATCH, LENGTH))
    before, began = _peak_mib(), time.process_time()
    loss = globals()[name](logits_BTV, labels_BT)
    loss.backward()
    seconds, memory = time.process_time() - began, _peak_mib() - before
    size = logits_BTV.numel() * logits_BTV.element_size() / MIB
    print(f"{name}: {loss.item():.5f}, {seconds:.1f} s of CPU, {memory:.0f} MiB beside logits of {size:.0f} MiB")


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        for each in (trainers_loss, loss_with_log_z):
            subprocess.run([sys.executable, "-m", "benchmarks.frameworks.log_z", each.__name__], check=True)
