from pathlib import Path

import pytest

from lossguard.run.settings import Mode, Settings
from lossguard.spool.archive import Keep
from lossguard.vocabulary.errors import ConfigurationError

URL = "http://127.0.0.1:8000"


def test_without_a_collector_a_run_is_offline() -> None:
    settings = Settings.read({})
    assert settings.mode is Mode.OFFLINE
    assert settings.directory == Path(".lossguard")


def test_an_address_turns_a_run_online_and_loses_its_trailing_slash() -> None:
    settings = Settings.read({"LOSSGUARD_URL": URL + "/"})
    assert (settings.mode, settings.url) == (Mode.ONLINE, URL)


def test_spools_stay_as_they_are_unless_the_environment_says_otherwise() -> None:
    assert Settings.read({}).keep is Keep.ALL
    assert Settings.read({"LOSSGUARD_SPOOL_KEEP": "compressed"}).keep is Keep.COMPRESSED


def test_only_rank_0_records() -> None:
    assert Settings.read({"LOSSGUARD_URL": URL, "LOSSGUARD_MODE": "online", "RANK": "1"}).mode is Mode.OFF
    assert Settings.read({"LOSSGUARD_URL": URL, "RANK": "1"}, mode="online").mode is Mode.OFF
    assert Settings.read({"LOSSGUARD_URL": URL, "RANK": "0"}).mode is Mode.ONLINE


@pytest.mark.parametrize(
    ("rank", "size"), [("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")]
)
def test_of_the_processes_that_srun_or_mpirun_starts_only_rank_0_records(rank: str, size: str) -> None:
    first, second = (Settings.read({"LOSSGUARD_URL": URL, rank: number, size: "2"}) for number in "01")
    assert (first.mode, first.rank, first.num_ranks) == (Mode.ONLINE, 0, 2)
    assert (second.mode, second.rank, second.num_ranks) == (Mode.OFF, 1, 2)


@pytest.mark.parametrize(("variable", "other"), [("LOCAL_RANK", "NODE_RANK"), ("NODE_RANK", "LOCAL_RANK")])
def test_a_process_of_a_launcher_that_sets_no_rank_is_not_taken_for_rank_0(variable: str, other: str) -> None:
    assert Settings.read({"LOSSGUARD_URL": URL, variable: "1", other: "0", "WORLD_SIZE": "2"}).mode is Mode.OFF
    assert Settings.read({"LOSSGUARD_URL": URL, variable: "0", other: "0", "WORLD_SIZE": "2"}).mode is Mode.ONLINE
    assert Settings.read({"LOSSGUARD_URL": URL, variable: "1", "RANK": "0"}).mode is Mode.ONLINE


def test_an_argument_goes_before_the_environment() -> None:
    env = {"LOSSGUARD_MODE": "off", "LOSSGUARD_DIR": "env", "LOSSGUARD_RUN_ID": "env", "LOSSGUARD_TOKEN": "env"}
    settings = Settings.read(env, mode="offline", directory="arg", run_id="arg", token="arg")
    assert (settings.mode, settings.directory) == (Mode.OFFLINE, Path("arg"))
    assert (settings.run_id, settings.token) == ("arg", "arg")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LOSSGUARD_URL", "localhost:8000"),
        ("LOSSGUARD_URL", "http://"),
        ("LOSSGUARD_URL", "http://[::1"),
        ("LOSSGUARD_URL", "http://host:port"),
        ("LOSSGUARD_URL", "ftp://host"),
        ("LOSSGUARD_MODE", "maybe"),
        ("LOSSGUARD_SPOOL_KEEP", "some"),
        ("RANK", "first"),
        ("WORLD_SIZE", "-1"),
    ],
)
def test_a_bad_variable_is_named_with_its_value(variable: str, value: str) -> None:
    with pytest.raises(ValueError, match=variable) as problem:
        Settings.read({variable: value})
    assert value in str(problem.value)


def test_an_impossible_port_is_named_in_the_error() -> None:
    with pytest.raises(ValueError, match="Port out of range 0-65535"):
        Settings.read({"LOSSGUARD_URL": "http://127.0.0.1:80000"})


def test_the_time_to_wait_for_another_process_is_a_number_of_seconds() -> None:
    assert Settings.read({}).lock_wait == 30.0
    assert Settings.read({"LOSSGUARD_LOCK_WAIT": "0"}).lock_wait == 0.0
    for value in ("soon", "-1", "nan", "inf", "86401"):
        with pytest.raises(ConfigurationError, match=f"LOSSGUARD_LOCK_WAIT='{value}' must be seconds"):
            Settings.read({"LOSSGUARD_LOCK_WAIT": value})


def test_hardware_is_sampled_unless_it_is_switched_off() -> None:
    assert Settings.read({}).hardware_interval == 15.0
    assert Settings.read({"LOSSGUARD_HARDWARE": "60"}).hardware_interval == 60.0
    assert Settings.read({"LOSSGUARD_HARDWARE": "off"}).hardware_interval is None
    for value in ("no", "0.5", "nan", "1e9"):
        with pytest.raises(ConfigurationError, match=f"LOSSGUARD_HARDWARE='{value}' must be off, or seconds from 1"):
            Settings.read({"LOSSGUARD_HARDWARE": value})
