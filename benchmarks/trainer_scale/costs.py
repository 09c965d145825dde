"""What a run pays with so many ranks and parameters: at a boundary, for a checkpoint, for a restore. Pure functions."""

from dataclasses import dataclass

from benchmarks.trainer_scale import operations
from benchmarks.trainer_scale.operations import Model
from benchmarks.trainer_scale.rates import Rates
from benchmarks.trainer_scale.traffic import Traffic

MAX_SHARE_OF_DEVICE = 0.6
"""Of the device's memory, for weights and moments: gradients and activations need the rest."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What one operation without a payload takes."""

    messages: int
    cpu_seconds: float
    """Of the busiest rank."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Save:
    """One checkpoint, sharded over all ranks. Seconds are those of a rank."""

    fits: bool
    """Whether weights and moments leave enough of the device's memory free."""
    state_bytes: float
    """Of one rank; in page-locked memory as well."""
    copy: float
    """Seconds that the training loop waits for the copy,"""
    agreement: float
    """and for the other ranks."""
    write: float
    """Seconds in the background: to the shared disk or the object store,"""
    hash: float
    """for SHA-256,"""
    messages: float
    """and for messages."""
    index_bytes: int
    """Of one rank's own index."""
    manifest_bytes: int
    planned_items: int
    """What torch's plan would have on rank 0 instead:"""
    planned_bytes: int
    """the bytes that rank 0 receives,"""
    planned_seconds: float
    """its CPU and the messages,"""
    planned_index_bytes: int
    """and the index that each rank parses for a restore."""


@dataclass(frozen=True, slots=True)
class Restore:
    """One load of the shards that a rank has written. Seconds."""

    read: float
    """Once: a rank reads for the checksum, and then finds the content in the cache of the disk."""
    sha256: float
    crc32: float
    """Of what was read, and of what the objects then hold."""
    copy: float
    """To the device, and back for the comparison."""
    index: float
    """To parse manifest, list of tensors and own index."""
    index_by_torch: float
    """To parse the index of all ranks, which torch writes."""
    messages: float


def agreement(traffic: Traffic, rates: Rates) -> Agreement:
    """Messages one after another, and those of one rank on one core."""
    cpu_seconds = traffic.messages * rates.cpu_of_message
    return Agreement(traffic.messages, cpu_seconds, max(cpu_seconds, seconds(traffic, rates)))


def seconds(traffic: Traffic, rates: Rates) -> float:
    """Of an operation: its chain of messages, and the content through the busiest rank."""
    return traffic.hops * rates.hop + traffic.most / rates.node_network


def save(model: Model, ranks: int, rates: Rates) -> Save:
    """What one checkpoint costs."""
    state = model.parameters * rates.bytes_per_parameter / ranks
    planned = operations.plan_by_torch(ranks, model.tensors)
    items = model.tensors * ranks
    in_loop = operations.run_on_all(ranks)
    return Save(
        fits=state <= MAX_SHARE_OF_DEVICE * rates.device_memory,
        state_bytes=state,
        copy=state / rates.device_to_host,
        agreement=seconds(in_loop, rates),
        write=state * min(ranks, rates.ranks_per_node) / rates.node_to_storage,
        hash=state / rates.sha256,
        messages=seconds(operations.save(ranks, model.tensors), rates),
        index_bytes=model.tensors * operations.PIECE,
        manifest_bytes=ranks * operations.FILES_PER_RANK * operations.MANIFEST_FILE,
        planned_items=items,
        planned_bytes=(operations.PLANNED + operations.RESULT) * items,
        planned_seconds=items * rates.planned + seconds(planned, rates),
        planned_index_bytes=items * operations.PIECE,
    )


def restore(model: Model, ranks: int, rates: Rates) -> Restore:
    """What one load costs."""
    saved = save(model, ranks, rates)
    own = saved.index_bytes + saved.manifest_bytes + model.tensors * operations.DESCRIBED
    return Restore(
        read=saved.write,
        sha256=saved.hash,
        crc32=2 * saved.state_bytes / rates.crc32,
        copy=2 * saved.copy,
        index=own / rates.json,
        index_by_torch=saved.planned_index_bytes / rates.json,
        messages=seconds(operations.restore(ranks), rates),
    )
