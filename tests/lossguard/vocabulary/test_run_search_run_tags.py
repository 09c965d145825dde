from lossguard.vocabulary.run_search import tags_of


def test_the_tags_of_people_replace_those_of_the_configuration() -> None:
    assert tags_of(None, {"tags": ["trial"]}) == ["trial"]
    assert tags_of(["paper"], {"tags": ["trial"]}) == ["paper"]
    assert tags_of([], {"tags": ["trial"]}) == []


def test_what_is_no_tag_in_a_configuration_is_left_out() -> None:
    assert tags_of(None, {}) == tags_of(None, {"tags": "trial"}) == []
    assert tags_of(None, {"tags": [1, "trial", None]}) == ["trial"]
