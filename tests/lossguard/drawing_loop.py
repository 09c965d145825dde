"""A training script of the shape of nanoGPT's train.py, before the eight lines of docs/batches.md make it guarded.

It reads tokens from the folder DATA, and leaves the loss on held-out windows in `held_out`.
"""

import math
import os
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

out_dir = os.environ["OUT"]
batch_size, block_size, gradient_accumulation_steps = 4, 16, 2
learning_rate, min_lr, warmup_iters, max_iters, grad_clip = 3e-2, 3e-3, 5, 99, 1.0
eval_interval, log_interval, vocab_size = 25, 10, 33
config = {"learning_rate": learning_rate, "max_iters": max_iters}
ddp, master_process, ctx = False, True, nullcontext()
torch.manual_seed(1337 + int(os.environ["SEED"]))
train_data, val_data = (np.memmap(f"{os.environ['DATA']}/{name}.bin", np.uint16, "r") for name in ("train", "val"))


def get_batch(split: str) -> Any:
    data = train_data if split == "train" else val_data
    ix = torch.randint(len(data) - block_size, (batch_size,))
    x = torch.stack([torch.from_numpy(data[i : i + block_size].astype(np.int64)) for i in ix])
    y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + block_size].astype(np.int64)) for i in ix])
    return x, y


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Embedding(vocab_size, 32), nn.Dropout(0.1), nn.Linear(32, vocab_size))

    def forward(self, inputs: Any, targets: Any) -> Any:
        logits = self.layers(inputs)
        return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


model: Any = Model()
optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.99))
scaler = torch.amp.GradScaler("cpu", enabled=False)
iter_num = 0


@torch.no_grad()
def estimate_loss(num: int = 20) -> float:
    model.eval()
    losses = torch.stack([model(*get_batch("val"))[1] for _ in range(num)])
    model.train()
    return losses.mean().item()


def get_lr(step: int) -> float:
    if step < warmup_iters:
        return learning_rate * (step + 1) / warmup_iters
    decayed = 0.5 * (1.0 + math.cos(math.pi * (step - warmup_iters) / (max_iters - warmup_iters)))
    return min_lr + decayed * (learning_rate - min_lr)


X, Y = get_batch("train")  # fetch the very first batch
raw_model = model.module if ddp else model
while True:
    lr = get_lr(iter_num)
    for param_group in optimizer.param_groups:
        param_group["lr"] = lr

    if iter_num % eval_interval == 0 and master_process:
        print(f"step {iter_num}: val loss {estimate_loss():.4f}")

    for micro_step in range(gradient_accumulation_steps):
        if ddp:
            model.require_backward_grad_sync = micro_step == gradient_accumulation_steps - 1
        with ctx:
            logits, loss = model(X, Y)
            loss = loss / gradient_accumulation_steps
        X, Y = get_batch("train")
        scaler.scale(loss).backward()
    if grad_clip != 0.0:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)

    if iter_num % log_interval == 0 and master_process:
        print(f"iter {iter_num}: loss {loss.item() * gradient_accumulation_steps:.4f}")
    iter_num += 1

    # termination conditions
    if iter_num > max_iters:
        break

held_out = estimate_loss(200)
