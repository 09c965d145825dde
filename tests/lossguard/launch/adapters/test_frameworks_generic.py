from pathlib import Path

import pytest

from lossguard import Skip
from lossguard.launch.adapters import ADAPTERS, Options
from lossguard.vocabulary.errors import ConfigurationError


def options(folder: Path, **changes: object) -> Options:
    given = {"checkpoints": f"{folder}/step_{{step}}.pt", "resume_args": "--resume {checkpoint} --from={step}"}
    return Options(**given | changes)  # type: ignore[arg-type]


def test_the_pattern_says_what_a_checkpoint_is_and_the_template_how_to_resume(tmp_path: Path) -> None:
    for name in ("step_5.pt", "step_0010.pt", "step_20.pt.tmp", "last.pt"):
        (tmp_path / name).touch()
    adapter = ADAPTERS["generic"](["train"], {}, options(tmp_path))
    assert sorted(adapter.checkpoints()) == [5, 10]
    arguments, variables = adapter.resume(10, [Skip(3, 4)])
    assert arguments == ["--resume", str(tmp_path / "step_0010.pt"), "--from=10"]
    assert variables == {"LOSSGUARD_RESUME_STEP": "10"}
    assert [path.name for path in adapter.late_paths(5)] == ["step_0010.pt"]


def test_it_skips_only_if_the_user_says_so_and_counts_from_what_the_user_says(tmp_path: Path) -> None:
    assert not ADAPTERS["generic"](["train"], {}, options(tmp_path)).can_skip
    adapter = ADAPTERS["generic"](["train"], {}, options(tmp_path, can_skip=True, first_step=1))
    assert (adapter.can_skip, adapter.first_step) == (True, 1)


@pytest.mark.parametrize("pattern", ["", "out", "out/{step}/model.pt", "out/{step}_{step}"])
def test_a_pattern_without_one_step_in_its_last_part_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match=r"must have \{step\} once, in its last part"):
        ADAPTERS["generic"](["train"], {}, Options(checkpoints=pattern, resume_args="--resume {checkpoint}"))


def test_a_template_that_names_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--resume-args '--resume' must have"):
        ADAPTERS["generic"](["train"], {}, options(tmp_path, resume_args="--resume"))
