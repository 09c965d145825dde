"""Settings by dotted path, or by the last component of it."""

from lossguard.vocabulary.run_search import flattened, settings_named

SETTINGS = flattened(
    {"lr": 1, "optimizer": {"lr": 2, "betas": [0.9], "group": {"decay": 0}}, "decay": {"lr": 3}, "empty": {}}
)


def test_sections_are_dotted_names_and_an_empty_one_is_a_value() -> None:
    nested = {"optimizer.lr": 2, "optimizer.betas": [0.9], "optimizer.group.decay": 0}
    assert {"lr": 1, **nested, "decay.lr": 3, "empty": {}} == SETTINGS


def test_a_name_is_a_whole_path_or_else_every_last_component() -> None:
    assert settings_named(SETTINGS, "lr") == [1]
    assert settings_named(SETTINGS, "betas") == [[0.9]]
    assert settings_named({"a.lr": 1, "b.lr": 2, "blr": 3}, "lr") == [1, 2]
    assert settings_named(SETTINGS, "nothing") == []
