"""Which rank a process has, and of how many, from the variables of whatever started it.

One rule for `lossguard.init` and for the hooks of a launched command, whose processes run this file by its path
(`lossguard/launch/hooks/journal.py`). So it imports the standard library alone.
"""

from collections.abc import Iterable, Mapping

RANK_VARIABLES = (
    "SLURM_PROCID",  # srun
    "OMPI_COMM_WORLD_RANK",  # mpirun of Open MPI
    "PMI_RANK",  # mpiexec of MPICH and Intel MPI
    "JOB_COMPLETION_INDEX",  # an indexed Job of Kubernetes
    "NODE_RANK",  # Lightning's launcher sets no more than these two
    "LOCAL_RANK",
)
"""The largest one counts where RANK is not set: a launcher inside of another one leaves that one's variables as 0."""
SIZE_VARIABLES = (
    "SLURM_STEP_NUM_TASKS",  # not SLURM_NTASKS: a batch script that starts one process has it too
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
)


def rank_of(environment: Mapping[str, str]) -> int:
    """The rank: RANK (torchrun, accelerate, deepspeed, the Kubeflow trainer), or what started the process says."""
    return _first_or_largest(environment, "RANK", RANK_VARIABLES, 0)


def num_ranks_of(environment: Mapping[str, str]) -> int:
    """The number of ranks: WORLD_SIZE, or what started the process says."""
    return max(1, _first_or_largest(environment, "WORLD_SIZE", SIZE_VARIABLES, 1))


def _first_or_largest(environment: Mapping[str, str], first: str, others: Iterable[str], otherwise: int) -> int:
    for names in ((first,), others):
        numbers = [int(environment[name]) for name in names if environment.get(name, "").isdecimal()]
        if numbers:
            return max(numbers)
    return otherwise
