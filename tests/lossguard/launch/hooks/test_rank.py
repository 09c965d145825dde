import pytest

from lossguard.launch.hooks.rank import rank_of


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
    ],
)
def test_the_rank_is_what_the_innermost_launcher_says(environment: dict[str, str], rank: int) -> None:
    assert rank_of(environment) == rank
