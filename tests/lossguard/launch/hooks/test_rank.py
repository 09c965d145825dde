import subprocess
import sys
from pathlib import Path

import pytest

from lossguard.launch.hooks import rank
from lossguard.run import process_rank

HOOKS = Path(rank.__file__).parent
WITHOUT_LOSSGUARD = f"""
import sys
sys.path.insert(0, {str(HOOKS)!r})
import rank
print(rank.rank_of({{"SLURM_PROCID": "7"}}), [name for name in sys.modules if name.startswith("lossguard")])
"""


def test_the_hooks_have_the_rule_of_init() -> None:
    assert rank.rank_of.__code__ == process_rank.rank_of.__code__


@pytest.mark.slow
def test_the_rule_needs_no_lossguard_in_the_interpreter_of_the_command() -> None:
    command = [sys.executable, "-I", "-S", "-c", WITHOUT_LOSSGUARD]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == "7 []\n"
