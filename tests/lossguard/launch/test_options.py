import argparse
from pathlib import Path

import pytest

from lossguard.launch.options import ContractSupervisor, add_restart_options, limit_orders, supervisor_for
from lossguard.launch.restarting import RestartSupervisor
from lossguard.vocabulary.errors import ConfigurationError


def chosen(*arguments: str, tmp_path: Path) -> object:
    parser = argparse.ArgumentParser()
    add_restart_options(parser)
    options = parser.parse_args(arguments)
    return supervisor_for(options, ["train.py", "--output_dir", "out"], folder=tmp_path, run_folder=None)


def test_the_options_choose_who_supervises(tmp_path: Path) -> None:
    assert chosen(tmp_path=tmp_path) is None
    assert isinstance(chosen("--restart-with", "script", tmp_path=tmp_path), ContractSupervisor)
    found = chosen("--restart-with", "hf", "--grace", "3", "--max-restarts", "2", "--restart-hangs", tmp_path=tmp_path)
    assert isinstance(found, RestartSupervisor)
    assert (found.limits.grace, found.limits.max_restarts, found.limits.restart_hangs) == (3.0, 2, True)
    assert found.adapter.folder == Path("out")


def test_the_command_inherits_the_stricter_of_the_option_and_the_environment() -> None:
    environment = {"LOSSGUARD_LIMITS": "max_depth=5,max_skip=9"}
    limit_orders("max_depth=7,mode=approve", environment)
    assert environment == {"LOSSGUARD_LIMITS": "mode=approve,max_depth=5,max_skip=9"}
    limit_orders(None, environment)
    assert environment == {"LOSSGUARD_LIMITS": "mode=approve,max_depth=5,max_skip=9"}
    with pytest.raises(ConfigurationError, match="--limits: 'deep' must be NAME=VALUE"):
        limit_orders("deep", environment)
