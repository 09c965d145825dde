"""Which rank a process has, from the variables of whatever started it."""

from collections.abc import Mapping

RANK_VARIABLES = (
    "RANK",  # torchrun, accelerate, deepspeed, the Kubeflow trainer
    "SLURM_PROCID",  # srun
    "OMPI_COMM_WORLD_RANK",  # mpirun of Open MPI
    "PMI_RANK",  # mpiexec of MPICH and Intel MPI
    "JOB_COMPLETION_INDEX",  # an indexed Job of Kubernetes
)
"""The first one that is set counts: under srun, torchrun's own RANK is the one of the worker."""


def rank_of(environment: Mapping[str, str]) -> int:
    """The rank of a process with these variables: 0 where none of them is a whole number."""
    for variable in RANK_VARIABLES:
        if environment.get(variable, "").isdecimal():
            return int(environment[variable])
    return 0
