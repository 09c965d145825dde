"""Which rank this process has, by the rule of `lossguard.init`.

The processes of a launched command cannot import that rule (`lossguard/run/process_rank.py`): its file is run here.
"""

import os
from importlib.machinery import SourceFileLoader
from types import ModuleType

TYPE_CHECKING = False  # without the import of typing
if TYPE_CHECKING:
    from lossguard.run.process_rank import rank_of as rank_of
else:
    _path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "run", "process_rank.py")
    _rule = ModuleType("process_rank")
    SourceFileLoader("process_rank", _path).exec_module(_rule)
    rank_of = _rule.rank_of
