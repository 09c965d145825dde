import pytest

from lossguard.run.process_rank import num_ranks_of, rank_of


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, 0),
        ({"RANK": "3"}, 3),
        ({"SLURM_PROCID": "2"}, 2),
        ({"OMPI_COMM_WORLD_RANK": "1"}, 1),
        ({"PMI_RANK": "5"}, 5),
        ({"JOB_COMPLETION_INDEX": "4"}, 4),
        ({"RANK": "0", "SLURM_PROCID": "7"}, 0),
        ({"RANK": "", "SLURM_PROCID": "7"}, 7),
        ({"RANK": "first"}, 0),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, 1),  # Lightning's launcher in a batch script
        ({"SLURM_PROCID": "8", "LOCAL_RANK": "0"}, 8),  # srun, and a script that sets LOCAL_RANK alone
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, 1),
        ({"RANK": "0", "LOCAL_RANK": "1"}, 0),
    ],
)
def test_the_rank_is_what_the_innermost_launcher_says(environment: dict[str, str], rank: int) -> None:
    assert rank_of(environment) == rank


@pytest.mark.parametrize(
    ("environment", "num_ranks"),
    [
        ({}, 1),
        ({"WORLD_SIZE": "4", "SLURM_STEP_NUM_TASKS": "2"}, 4),
        ({"SLURM_STEP_NUM_TASKS": "8"}, 8),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, 1),  # `python train.py` in a batch script
        ({"OMPI_COMM_WORLD_SIZE": "2"}, 2),
        ({"PMI_SIZE": "3"}, 3),
        ({"WORLD_SIZE": "0"}, 1),
    ],
)
def test_the_number_of_ranks_is_that_of_the_step_and_not_of_the_allocation(
    environment: dict[str, str], num_ranks: int
) -> None:
    assert num_ranks_of(environment) == num_ranks
