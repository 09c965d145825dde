"""What Lossguard has the ranks exchange at a step boundary, for a checkpoint and for a restore, and what torch does.

The lengths of pickles are those of typical contents; `measured` compares them with what is sent.
"""

from dataclasses import dataclass

from benchmarks.trainer_scale import traffic
from benchmarks.trainer_scale.traffic import Traffic

PATH = 140
"""Bytes of the pickled path of a checkpoint that is being written."""
FILES_OF_RANK, LIST_ITEM = 330, 8
"""Bytes of the pickled fingerprints of one rank's three files, and of a place in a list."""
MANIFEST_FILE = 140
"""Bytes of one file in the manifest."""
FILES_PER_RANK = 3
PIECE = 150
"""Bytes of a tensor in the index of a rank."""
PLANNED, RESULT, DESCRIBED = 171, 190, 41
"""Bytes of torch's pickled plan, of its result and of its metadata, for each tensor of each rank."""


def boundary(ranks: int) -> Traffic:
    """One exchange: the maxima of five integers."""
    return traffic.maxima(ranks, 5)


def boundary_before(ranks: int) -> Traffic:
    """One exchange before: four integers of every rank to every rank."""
    return traffic.all_gather(ranks, 32)


def run_on_all(ranks: int) -> Traffic:
    """An action that works on all ranks."""
    return traffic.maxima(ranks, 1)


def run_on_all_before(ranks: int) -> Traffic:
    """The same before: a pickled report of every rank to every rank."""
    return traffic.all_gather(ranks, 8) + traffic.all_gather(ranks, 19)


def save(ranks: int, tensors: int) -> Traffic:
    """All messages of a save on a disk that the ranks share, those in the loop included.

    `tensors`: their number; all are sharded over all ranks.
    """
    plan = traffic.maxima(ranks, 2) + traffic.all_reduce(ranks, 8 * tensors)
    pieces = traffic.gather_on_rank_0(ranks, lambda count: 20 + (5 + LIST_ITEM) * count)  # of whole tensors: none
    files = traffic.gather_on_rank_0(ranks, lambda count: 20 + (FILES_OF_RANK + LIST_ITEM) * count)
    return run_on_all(ranks).times(8) + traffic.broadcast_object(ranks, PATH) + plan + pieces + files


def restore(ranks: int, checkpoints: int = 20) -> Traffic:
    """All messages of a load: the list of checkpoints, those in memory, reading, loading."""
    return (
        traffic.broadcast_object(ranks, 16 + 3 * checkpoints)
        + traffic.broadcast_object(ranks, 5)
        + run_on_all(ranks).times(2)
    )


def plan_by_torch(ranks: int, tensors: int) -> Traffic:
    """torch.distributed.checkpoint.save: plans to rank 0 and back, results to rank 0, metadata to all."""
    plans = traffic.gather_object_by_torch(ranks, PLANNED * tensors)
    back = traffic.scatter_object_by_torch(ranks, PLANNED * tensors)
    results = traffic.gather_object_by_torch(ranks, RESULT * tensors)
    return plans + back + results + traffic.broadcast_object(ranks, DESCRIBED * tensors * ranks)


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder with so many parameters, as Llama 2 and 3 name its tensors."""

    billions: float
    layers: int

    @property
    def parameters(self) -> int:
        """Their number."""
        return round(1e9 * self.billions)

    @property
    def tensors(self) -> int:
        """Sharded tensors in a checkpoint: nine in each layer and three more, each with two moments of AdamW."""
        return 3 * (9 * self.layers + 3)


def model_of(billions: float) -> Model:
    """Layers of the Llama model of about that size (7B: 32, 70B: 80, 405B: 126), and in proportion between them."""
    known = {7.0: 32, 70.0: 80, 405.0: 126}
    return Model(billions, known.get(billions, round(32 * (billions / 7) ** 0.34)))
