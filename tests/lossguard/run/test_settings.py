from pathlib import Path

import pytest

from lossguard.run.settings import Mode, Settings
from lossguard.spool.archive import Keep
from lossguard.vocabulary.errors import ConfigurationError

URL = "http://127.0.0.1:8000"


def test_without_a_collector_a_run_is_offline_and_its_spools_stay_as_they_are() -> None:
    settings = Settings.read({})
    assert (settings.mode, settings.directory, settings.keep) == (Mode.OFFLINE, Path(".lossguard"), Keep.ALL)
    assert Settings.read({"LOSSGUARD_SPOOL_KEEP": "compressed"}).keep is Keep.COMPRESSED


def test_an_address_turns_a_run_online_and_loses_its_trailing_slash() -> None:
    settings = Settings.read({"LOSSGUARD_URL": URL + "/"})
    assert (settings.mode, settings.url) == (Mode.ONLINE, URL)


def test_only_rank_0_records() -> None:
    assert Settings.read({"LOSSGUARD_URL": URL, "LOSSGUARD_MODE": "online", "RANK": "1"}).mode is Mode.OFF
    assert Settings.read({"LOSSGUARD_URL": URL, "RANK": "1"}, mode="online").mode is Mode.OFF
    first, second = (Settings.read({"LOSSGUARD_URL": URL, "PMI_RANK": rank, "PMI_SIZE": "2"}) for rank in "01")
    assert (first.mode, first.rank, first.num_ranks) == (Mode.ONLINE, 0, 2)
    assert (second.mode, second.rank, second.num_ranks) == (Mode.OFF, 1, 2)


def test_an_argument_goes_before_the_environment() -> None:
    env = {"LOSSGUARD_MODE": "off", "LOSSGUARD_DIR": "env", "LOSSGUARD_RUN_ID": "env", "LOSSGUARD_TOKEN": "env"}
    settings = Settings.read(env, mode="offline", directory="arg", run_id="arg", token="arg")
    assert (settings.mode, settings.directory) == (Mode.OFFLINE, Path("arg"))
    assert (settings.run_id, settings.token) == ("arg", "arg")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LOSSGUARD_URL", "localhost:8000"),
        ("LOSSGUARD_URL", "http://[::1"),
        ("LOSSGUARD_URL", "http://127.0.0.1:80000"),
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


@pytest.mark.parametrize(
    ("variable", "field", "read", "refused", "why"),
    [
        ("LOSSGUARD_LOCK_WAIT", "lock_wait", {"": 30.0, "0": 0.0}, ("soon", "-1", "nan", "inf", "86401"), "seconds"),
        (
            "LOSSGUARD_HARDWARE",
            "hardware_interval",
            {"": 15.0, "60": 60.0, "off": None},
            ("no", "0.5", "1e9"),
            "off, or",
        ),
    ],
)
def test_a_duration_is_a_number_of_seconds(
    variable: str, field: str, read: dict[str, float | None], refused: tuple[str, ...], why: str
) -> None:
    assert {value: getattr(Settings.read({variable: value}), field) for value in read} == read
    for value in refused:
        with pytest.raises(ConfigurationError, match=f"{variable}='{value}' must be {why}"):
            Settings.read({variable: value})
