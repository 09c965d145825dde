from pathlib import Path

import pytest

from trainer.config import RECIPES, load_recipe
from trainer.errors import UsageError


@pytest.mark.parametrize("name", sorted(file.stem for file in RECIPES.glob("*.toml")))
def test_every_recipe_that_comes_along_can_be_read(name: str) -> None:
    assert load_recipe(name).name == name


def test_overrides_go_before_the_file() -> None:
    recipe = load_recipe("tiny", ["model.layers=3", "optimizer.lr=1", "optimizer.decay_steps=7", "data.path=a b.txt"])
    assert (recipe.model.layers, recipe.optimizer.lr, recipe.optimizer.decay_steps) == (3, 1.0, 7)
    assert recipe.data.path == "a b.txt"
    assert recipe.model.width == load_recipe("tiny").model.width


def test_a_recipe_of_the_users_own_is_given_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("steps = 3\n[model]\nqk_norm = true\n")
    recipe = load_recipe(str(file))
    assert (recipe.name, recipe.steps, recipe.model.qk_norm) == ("mine", 3, True)


MISTAKES = {
    "model.widht=3": "model.widht is not a field of section model; its fields are: vocab_size, layers",
    "stepz=3": "stepz is not a field of a recipe; its fields are: name, project, steps",
    "model.layers=0": "model.layers = 0 cannot be used: it must be 1 or more",
    "model.layers=two": "model.layers = 'two' cannot be used: it must be a whole number",
    "model.layers=2.0": "model.layers = 2.0 cannot be used: it must be a whole number",
    "model.layers=true": "model.layers = True cannot be used: it must be a whole number",
    "model.qk_norm=1": "model.qk_norm = 1 cannot be used: it must be true or false",
    "model.width=100": "model.width = 100 cannot be used: it must be a multiple of 2 [*] model.heads = 8",
    "model.vocab_size=70000": "between 2 and 65536",
    "model=3": "model = 3 cannot be used: it is a section, not a value",
    "steps.x=3": "steps is not a section",
    "optimizer.lr=nan": "optimizer.lr = nan cannot be used: it must be above 0",
    "optimizer.weight_decay=nan": "optimizer.weight_decay = nan cannot be used: it must be 0 or more",
    "optimizer.beta2=1.0": "at least 0 and below 1",
    "objective.scheduled_sampling=1.5": "objective.scheduled_sampling = 1.5 cannot be used: it must be between 0 and 1",
    "objective.own_inputs=1.5": "objective.parallel_scheduled_sampling = 1.5 cannot be used: it must be between 0",
    "objective.label_smoothing=1": "at least 0 and below 1",
    "data.held_out=1": "at least 0 and below 1",
    "data.rows=padded": "data.rows = 'padded' cannot be used: it must be one of packed, documents, paragraphs",
    "data.max_windows=3": "data.max_windows = 3 cannot be used: it must be 0, or data.batch_size = 24 or more",
    "data.separator=-1": "data.separator = -1 cannot be used: it must be 0 or more",
    "data.curriculum_steps=0": "data.curriculum_steps = 0 cannot be used: it must be 1 or more",
    "device=tpu": "device = 'tpu' cannot be used: it must be auto, cpu, cuda or cuda:N",
    "seed=-1": "seed = -1 cannot be used",
    "steps": "has no value",
}


@pytest.mark.parametrize("override", MISTAKES)
def test_a_bad_value_is_named_with_the_valid_ones(override: str) -> None:
    with pytest.raises(UsageError, match=MISTAKES[override]):
        load_recipe("tiny", [override])


def test_a_recipe_may_change_what_it_names_of_another(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('base = "tiny"\nsteps = 3\n[model]\nlayers = 1\n')
    (tmp_path / "b.toml").write_text(f'base = "{tmp_path}/a.toml"\n[model]\nheads = 2\n')
    recipe, tiny = load_recipe(str(tmp_path / "b.toml")), load_recipe("tiny")
    assert (recipe.name, recipe.steps, recipe.model.layers, recipe.model.heads) == ("b", 3, 1, 2)
    assert (recipe.model.width, recipe.optimizer) == (tiny.model.width, tiny.optimizer)


def test_recipes_that_are_each_others_base_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(f'base = "{tmp_path}/b.toml"')
    (tmp_path / "b.toml").write_text(f'base = "{tmp_path}/a.toml"')
    with pytest.raises(UsageError, match="its base must be another recipe"):
        load_recipe(str(tmp_path / "a.toml"))
