"""Models under DDP and FSDP2: rolled back, interrupted, damaged. Each function is one scenario."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from lossguard import Guard, Order, Run, Skip
from lossguard.checkpoints import framework_checkpoints
from lossguard.checkpoints.files import read_state
from lossguard.checkpoints.framework_checkpoints import FrameworkCheckpoints
from lossguard.checkpoints.remote.files import RemoteFiles
from lossguard.checkpoints.sharded import checkpoint as sharded_checkpoint
from lossguard.run.collectives import local_part
from lossguard.torch import Checkpoints, TorchRanks, reset_damaged_moments
from lossguard.vocabulary.errors import CheckpointError, CheckpointMismatch
from tests.lossguard.scripted import rollback
from tests.ranks.agreement import Result, run_of

KINDS = ("ddp", "fsdp")
BUCKET = "OBJECT_STORE_BUCKET"
"""Variable with the URL of a bucket, where an object store runs."""
ROWS = 6
"""Not a multiple of 4: the shards of 4 ranks differ in size, and one rank has none of the last layer."""


class Batches:
    """Batch i is a pure function of i and of the rank."""

    def __getitem__(self, index: int) -> Tensor:
        rank = dist.get_rank() if dist.is_initialized() else 0
        return torch.randn(4, 8, generator=torch.Generator().manual_seed(1000 * rank + index))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, ROWS), nn.Dropout(0.5), nn.Linear(ROWS, 3))


class Small:
    """A model with dropout, AdamW and a schedule: everything that a checkpoint must restore."""

    def __init__(self, kind: str, folder: str | Path, blocking: bool = False, memory: int = 0) -> None:
        self.model: nn.Module = network()
        if kind == "fsdp":
            fully_shard(self.model)
        if kind == "hybrid":
            fully_shard(self.model, mesh=init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "shards")))
        if kind == "tensor":
            mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
            parallelize_module(self.model, mesh["tensor"], {"0": ColwiseParallel(output_layouts=Replicate())})
            fully_shard(self.model, mesh=mesh["data"])
        self.network = DistributedDataParallel(self.model) if kind == "ddp" else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        torch.manual_seed(dist.get_rank() if dist.is_initialized() else 0)
        parts = {"model": self.network, "optimizer": self.optimizer, "scheduler": self.scheduler}
        options = {"blocking": blocking, "memory": memory, "memory_every": 2}
        self.checkpoints = Checkpoints(folder, **options, **parts)  # type: ignore[arg-type]

    def step(self, batch: Tensor) -> str:
        loss = self.network(batch).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return float(loss.detach()).hex()

    def run(self, until: int, run: Run | None = None) -> Iterator[tuple[int, str]]:
        ranks = TorchRanks(pause=0) if dist.is_initialized() else None
        guard = Guard(run or run_of(), checkpoints=self.checkpoints, every=5, ranks=ranks)
        for step, batch in guard.steps(Batches(), until):
            yield step, self.step(batch)

    def full_state(self) -> dict[str, Any]:
        """Weights and moments, gathered from all ranks."""
        weights = {name: full(tensor) for name, tensor in self.model.state_dict().items()}
        states = self.optimizer.state_dict()["state"].items()
        return weights | {f"{key}.{name}": full(value) for key, state in states for name, value in state.items()}


def full(tensor: Any) -> Any:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).tolist()


def trained(kind: str, folder: Path, until: int, orders: dict[int, Order] | None = None, memory: int = 0) -> Result:
    small = Small(kind, folder, memory=memory)
    return {"losses": dict(small.run(until, run_of(orders))), "full_state": small.full_state()}


def a_rollback_that_skips(folder: Path) -> Result:
    order = rollback(rewind_to=12, skip_from=11, skip_to=17)
    results: Result = {}
    for kind in KINDS:
        skipping = run_of()
        skipping.history.skips.append(Skip(11, 17))
        results[kind] = [trained(kind, folder / f"rolled-{kind}", 25, {18: dataclasses.replace(order)})]
        small = Small(kind, folder / f"skipping-{kind}")
        results[kind].append({"losses": dict(small.run(25, skipping)), "full_state": small.full_state()})
    return results


def a_rollback_from_memory(folder: Path) -> Result:
    """To a step that only the memory holds, compared with the checkpoint of the disk before it."""
    results: Result = {}
    for kind in KINDS:
        order = rollback(rewind_to=12, skip_from=12, skip_to=17)
        rolled = [
            trained(kind, folder / f"m{memory}-{kind}", 25, {18: dataclasses.replace(order)}, memory)
            for memory in (4, 0)
        ]
        results[kind] = rolled
    return results


def twelve_steps_then_eight(folder: Path) -> Result:
    results: Result = {}
    for kind in KINDS:
        halves = trained(kind, folder / f"halves-{kind}", 12)["losses"]
        more = trained(kind, folder / f"halves-{kind}", 20)
        once = trained(kind, folder / f"once-{kind}", 20)
        results[kind] = [once, {"losses": halves | more["losses"], "full_state": more["full_state"]}]
    return results


def a_checkpoint_of_each_kind(folder: Path) -> Result:
    return {kind: trained(kind, folder / kind, 7)["full_state"] for kind in KINDS}


def a_checkpoint_of_one_process(folder: Path) -> Result:
    """`folder`/alone is written by the fixture."""
    return {kind: restored(Small(kind, folder / "alone")) for kind in KINDS}


def restored(small: Small, step: int = 10**9) -> Result:
    state = small.checkpoints.load(step)
    return {"step": state["step"], "full_state": small.full_state(), "drawn": float(torch.rand(()))}


class OfRank:
    """An object of the loop whose state each rank has for itself, as a sampler may."""

    def __init__(self) -> None:
        self.seen = [dist.get_rank()]

    def state_dict(self) -> dict[str, Any]:
        return {"seen": list(self.seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = list(state["seen"])


class Bare:
    """An object whose state is a bare number or tensor."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> Any:
        return self.value

    def load_state_dict(self, state: Any) -> None:
        self.value = state


def states_that_differ_by_rank(folder: Path) -> Result:
    """Statistics of BatchNorm and three objects of its own, and what a load gives back."""
    model = DistributedDataParallel(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    sampler, number, drawn = OfRank(), Bare(dist.get_rank()), Bare(torch.tensor([dist.get_rank()]))
    objects: dict[str, Any] = {"model": model, "sampler": sampler, "number": number, "drawn": drawn}
    checkpoints = Checkpoints(folder / "own", blocking=True, **objects)
    model(torch.randn(4, 2, generator=torch.Generator().manual_seed(dist.get_rank())))
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    checkpoints.save(1, {})
    model(torch.ones(4, 2))
    sampler.seen.append(7)
    number.value = drawn.value = 7
    checkpoints.load(1)
    is_same = {name: torch.equal(value, buffers[name]) for name, value in model.named_buffers()}
    mean = buffers["module.1.running_mean"].tolist()
    return {"is_same": is_same, "seen": [*sampler.seen, number.value, *drawn.value.tolist()], "mean": mean}


class Averages:
    """Averages of the weights as people keep them, sharded as the model."""

    def __init__(self, model: nn.Module) -> None:
        self.shadow = {name: value.clone() for name, value in model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return {"shadow": dict(self.shadow)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shadow = dict(state["shadow"])


def sharded_averages(folder: Path) -> Result:
    """The own values in the file of each rank, saved in the loop and in the background."""
    results: Result = {}
    for blocking in (True, False):
        model = network()
        fully_shard(model)
        averages = Averages(model)
        checkpoints = Checkpoints(folder / f"averages-{blocking}", blocking=blocking, model=model, averages=averages)
        checkpoints.save(1, {})
        checkpoints.settle(wait=True)
        place = folder / f"averages-{blocking}" / "step-000000001"
        own = read_state(place / f"rank-{dist.get_rank()}.pt")[sharded_checkpoint.OWN]
        before = {name: full(value) for name, value in averages.shadow.items()}
        for value in averages.shadow.values():
            local_part(value).zero_()
        checkpoints.load(1)
        is_same = {name: full(value) for name, value in averages.shadow.items()} == before
        results[f"blocking={blocking}"] = {"own": list(own), "is_same": is_same}
    return results


class FailsOnRank1(Batches):
    """Data of which one rank cannot say where it stands."""

    def seek(self, index: int, *, since: int) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        if dist.get_rank() == 1:
            raise OSError("the list of files is away")
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def data_whose_state_fails_on_one_rank(folder: Path) -> Result:
    """The steps of each rank, and what it can restore."""
    small = Small("ddp", folder / "position")
    guard = Guard(run_of(), checkpoints=small.checkpoints, every=2, ranks=TorchRanks(pause=0, timeout=20))
    steps = [(step, small.step(batch))[0] for step, batch in guard.steps(FailsOnRank1(), 5)]
    return {"steps": steps, "restorable": small.checkpoints.steps()}


class ByRank0(FrameworkCheckpoints):
    """As a framework writes a model: rank 0's."""

    def _write_by_framework(self, folder: Path) -> None:
        if self.ranks.rank == 0:
            torch.save(self.objects["model"].state_dict(), folder / "model.pt")

    def _read_by_framework(self, folder: Path) -> dict[str, Any]:
        return {"model": read_state(folder / "model.pt")}


def statistics_that_a_framework_writes_of_rank_0(folder: Path) -> Result:
    model = DistributedDataParallel(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    checkpoints = ByRank0(folder / "framework", model=model)
    model(torch.randn(4, 2, generator=torch.Generator().manual_seed(dist.get_rank())))
    checkpoints.save(1, {})
    checkpoints.settle(wait=True)
    before = dict(model.named_buffers())["module.1.running_mean"].tolist()
    checkpoints.load(1)
    return {"before": before, "after": dict(model.named_buffers())["module.1.running_mean"].tolist()}


def damaged_moments_of_a_shard(folder: Path) -> Result:
    """The last rank's part of one moment is damaged; each rank resets what is damaged on it."""
    small = Small("fsdp", folder / "moments")
    for _ in small.run(3):
        pass
    parameter = small.optimizer.param_groups[0]["params"][0]
    state = small.optimizer.state[parameter]
    moment = state["exp_avg"].to_local()
    if dist.get_rank() == dist.get_world_size() - 1:
        moment[0, 0] = float("nan")
    num_reset = reset_damaged_moments(small.optimizer)
    return {"num_reset": num_reset, "is_zero": not moment.any().item(), "step": state["step"].item()}


def a_nan_on_one_rank(folder: Path) -> Result:
    """What each rank says of the checkpoint, and which steps it can restore."""
    results: Result = {}
    for kind in KINDS:
        small = Small(kind, folder / f"nan-{kind}", blocking=True)
        for _ in small.run(3):
            pass
        if dist.get_rank() == 1:
            moments = small.optimizer.state[next(small.model.parameters())]["exp_avg"]
            local_part(moments).view(-1)[0] = torch.nan
        small.checkpoints.save(4, {"step": 4})
        results[kind] = {"uncertified": small.checkpoints.take_uncertified(), "steps": small.checkpoints.steps()}
    return results


def a_copy_that_differs(folder: Path) -> Result:
    """What each rank says of checkpoints whose weights, moments or step counts have another bit on rank 1."""
    small = Small("ddp", folder / "copies", blocking=True)
    for _ in small.run(3):
        pass
    parameter = small.model[0].weight  # type: ignore[index]
    state = small.optimizer.state[parameter]
    tensors = {"weight": parameter.data, **{name: state[name] for name in ("exp_avg", "exp_avg_sq", "step")}}
    results: Result = {}
    for name, bit in [(name, bit) for name in ("weight", "exp_avg") for bit in (0, 22, 23, 30, 31)] + [
        ("exp_avg_sq", 0),
        ("step", 22),
    ]:
        bits = tensors[name].view(-1).view(torch.int32)
        if dist.get_rank() == 1:
            bits[-1] ^= torch.tensor(1 << bit).int()
        small.checkpoints.save(4 + len(results), {"step": 4})
        results[f"{name} {bit}"] = small.checkpoints.take_uncertified()
        if dist.get_rank() == 1:
            bits[-1] ^= torch.tensor(1 << bit).int()
    small.checkpoints.save(99, {"step": 99})
    return {"found": results, "steps": small.checkpoints.steps()}


def swapped_shards(folder: Path) -> Result:
    """Two ranks of the first of two copies of the model hold each other's shard of a moment."""
    small = Small("hybrid", folder / "swapped", blocking=True)
    for _ in small.run(3):
        pass
    moment = local_part(small.optimizer.state[next(small.model.parameters())]["exp_avg"])
    ranks = TorchRanks()
    shards = ranks.gather(moment.clone())
    if ranks.rank < 2:
        moment.copy_(shards[1 - ranks.rank])
    small.checkpoints.save(4, {"step": 4})
    return {"uncertified": small.checkpoints.take_uncertified(), "steps": small.checkpoints.steps()}


def a_damaged_shard(folder: Path) -> Result:
    small = Small("fsdp", folder / "damaged")
    for _ in small.run(7):
        pass
    (shard,) = (folder / "damaged" / "step-000000007").glob("__1_*.distcp")
    if dist.get_rank() == 0:
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    dist.barrier()
    return {"step": small.checkpoints.load(7)["step"]}


def a_framework_whose_files_cannot_be_flushed(folder: Path) -> Result:
    checkpoints = ByRank0(folder / "unflushed", model=DistributedDataParallel(nn.Linear(2, 3)))
    with pytest.MonkeyPatch.context() as patch:
        if dist.get_rank() == 0:
            patch.setattr(framework_checkpoints, "flush", no_space)
        try:
            checkpoints.save(5, {})
            checkpoints.settle(wait=True)
        except Exception as problem:
            return {"problem": f"{type(problem).__name__}: {problem}", "steps": checkpoints.steps()}
    return {"steps": checkpoints.steps()}


def a_rank_whose_disk_is_full(folder: Path) -> Result:
    """The earlier checkpoints stay, and no rank counts the one that failed."""
    small = Small("ddp", folder / "full")
    small.checkpoints.save(0, {"step": 0})
    small.checkpoints.settle(wait=True)
    problems = []
    with pytest.MonkeyPatch.context() as patch:
        if dist.get_rank() == 1:
            patch.setattr(sharded_checkpoint, "write_state", no_space)
        small.checkpoints.save(5, {"step": 5})
        try:
            small.checkpoints.settle(wait=True)
        except Exception as problem:
            problems.append(f"{type(problem).__name__}: {problem}")
    dist.barrier()
    left = sorted(path.name for path in (folder / "full").iterdir() if path.is_dir())
    return {"problems": problems, "left": left, "steps": small.checkpoints.steps()}


def no_space(path: Path, content: Any = None) -> dict[str, Any]:
    raise OSError(28, "No space left on device")


def an_object_that_is_not_restored_on_one_rank(folder: Path) -> Result:
    small = Small("fsdp", folder / "forgets")
    small.checkpoints.save(0, {"step": 0})
    if dist.get_rank() == 1:
        small.scheduler.load_state_dict = lambda state: None  # type: ignore[method-assign, assignment]
        small.scheduler.last_epoch = 17
    try:
        small.checkpoints.load(0)
    except CheckpointMismatch as mismatch:
        return {"raised": str(mismatch)}
    return {}


def a_state_that_is_not_plain_values(folder: Path) -> Result:
    small = Small("ddp", folder / "code", blocking=True)
    try:
        small.checkpoints.save(0, {"folder": folder})
    except CheckpointError as problem:
        return {"raised": str(problem), "steps": small.checkpoints.steps()}
    return {}


def checkpoints_at_a_url(folder: Path) -> Result:
    """A rollback, and a rank whose upload is refused; nothing where no object store runs."""
    bucket = os.environ.get(BUCKET)
    if bucket is None:
        return {}
    results: Result = {}
    for kind in KINDS:
        small = Small(kind, f"{bucket}/{kind}")
        run = run_of({18: rollback(rewind_to=12, skip_from=12, skip_to=17)})
        losses = {}
        for step, loss in small.run(25, run):
            losses[step] = loss
            small.checkpoints._join()  # an upload takes longer than such a step
        results[kind] = {"losses": losses, "full_state": small.full_state(), "steps": small.checkpoints.steps()}
    with pytest.MonkeyPatch.context() as patch:
        if dist.get_rank() == 1:
            patch.setattr(RemoteFiles, "put", refused)
        small.checkpoints.save(30, {"step": 30})
        try:
            small.checkpoints.settle(wait=True)
        except Exception as problem:
            results["problem"] = f"{type(problem).__name__}: {problem}"
    return results | {"after": Small("fsdp", f"{bucket}/fsdp").checkpoints.steps()}


def refused(*_: Any) -> None:
    raise OSError("the credentials have expired")


ON_TWO_RANKS = [
    checkpoints_at_a_url,
    a_checkpoint_of_each_kind,
    a_checkpoint_of_one_process,
    a_rollback_that_skips,
    a_rollback_from_memory,
    twelve_steps_then_eight,
    states_that_differ_by_rank,
    sharded_averages,
    statistics_that_a_framework_writes_of_rank_0,
    data_whose_state_fails_on_one_rank,
    damaged_moments_of_a_shard,
    a_damaged_shard,
    a_nan_on_one_rank,
    a_copy_that_differs,
    a_framework_whose_files_cannot_be_flushed,
    a_rank_whose_disk_is_full,
    an_object_that_is_not_restored_on_one_rank,
    a_state_that_is_not_plain_values,
]


def what_two_ranks_wrote(folder: Path) -> Result:
    """Each checkpoint of two ranks, restored into a model of either kind."""
    results = {f"{saved} as {kind}": restored(Small(kind, folder / saved)) for saved in KINDS for kind in KINDS}
    for kind in KINDS:
        trained(kind, folder / kind, 8)  # training continues, and this checkpoint is written by four ranks
    return results | {"after": {kind: Small(kind, folder / kind).checkpoints.load(8)["step"] for kind in KINDS}}


def copies_of_shards(folder: Path) -> Result:
    """Two copies of the model, each sharded over two ranks; and one that the same ranks restore."""
    saved = trained("hybrid", folder / "hybrid", 7)["full_state"]
    return {"saved": saved, "restored": restored(Small("hybrid", folder / "hybrid"))["full_state"]}


def shards_beside_tensor_parallelism(folder: Path) -> Result:
    """The first layer is divided over all four ranks, and of the last one each half lies on two of them."""
    small = Small("tensor", folder / "tensor")
    small.model.eval()  # no dropout: ranks with the same part must compute the same
    for _ in range(2):
        small.step(torch.ones(4, 8))
    small.checkpoints.save(2, {"step": 2})
    saved = small.full_state()
    small.step(torch.ones(4, 8))
    found = restored(small)["full_state"]
    if dist.get_rank() % 2:
        local_part(small.model[2].bias).fill_(9.0)  # type: ignore[index]
    small.checkpoints.save(3, {"step": 3})
    small.checkpoints.settle(wait=True)
    return {"saved": saved, "restored": found, "uncertified": small.checkpoints.take_uncertified()}


def different_tensors_on_each_rank(folder: Path) -> Result:
    """As with pipeline parallelism. Returns the error."""
    ranks = TorchRanks()
    place: Path = ranks.broadcast(folder / "stages")
    place.mkdir(exist_ok=True)
    state = {"model": {"shared": torch.arange(4), f"stage{ranks.rank}": torch.full((3,), ranks.rank)}}
    try:
        sharded_checkpoint.write_sharded(place, state, {}, ranks)
    except CheckpointError as problem:
        return {"error": str(problem), "files": sorted(path.name for path in place.iterdir())}
    return {}


ON_FOUR_RANKS = [
    a_rollback_that_skips,
    what_two_ranks_wrote,
    copies_of_shards,
    shards_beside_tensor_parallelism,
    different_tensors_on_each_rank,
    swapped_shards,
]
