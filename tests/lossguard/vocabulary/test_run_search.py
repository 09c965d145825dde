"""Words and conditions, as people write them into the search of runs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.vocabulary import run_search
from lossguard.vocabulary.run_search import (
    MAX_TERMS,
    Condition,
    Operator,
    Search,
    Word,
    flattened,
    parse,
    settings_named,
    tags_of,
)

NAMES = st.from_regex(r"[a-z_][\w.]*", fullmatch=True)
TEXTS = st.text(st.characters(exclude_characters='"\0', exclude_categories=["Cs"]), min_size=1)
TERMS = st.one_of(
    st.builds(Word, TEXTS, st.booleans()),
    st.builds(
        Condition, NAMES, st.sampled_from([Operator.CONTAINS, Operator.EQUAL, Operator.NOT_EQUAL]), TEXTS, st.booleans()
    ),
    st.builds(Condition, NAMES, st.sampled_from(list(run_search.ORDERS)), st.floats(allow_nan=False).map(str)),
)


@given(st.text())
def test_any_text_is_read_and_written_again_as_the_same_terms(text: str) -> None:
    search = parse(text)
    assert parse(str(search)).terms == search.terms
    conditions = [term for term in search.terms if isinstance(term, Condition)]
    assert all(term.holds(value) in (True, False) for term in conditions for value in (1, "a", None, math.nan, True))


@pytest.mark.slow
@given(st.lists(TERMS, max_size=MAX_TERMS))
def test_terms_are_read_as_they_were_written(terms: list[Word | Condition]) -> None:
    assert parse(str(Search(tuple(terms)))) == Search(tuple(terms))


@pytest.mark.parametrize(
    ("text", "met", "not_met"),
    [
        ("x:run", ["running", "RUN"], ["ended", 7, None]),
        ("x=running", ["Running"], ["runs", None]),
        ("x!=7", [8, "7 a", None], [7]),
        ("x=1e-3", [1e-3, "1E-3"], [1e-2, True, None]),
        ("x=12k", [12_000], ["12000"]),
        ("x<=2.5", [2.5, -math.inf], [2.6, math.nan, "1", True, None]),
        ("x>1M", [math.inf, 2e6], [1e6, math.nan]),
        ("x=nan", [math.nan], [1.0, math.inf]),
        ("x:yes", [True, "yes"], [False, 1, None]),
    ],
)
def test_a_condition_holds_for_the_values_that_meet_it(
    text: str, met: list[float | str | None], not_met: list[float | str | None]
) -> None:
    (term,) = parse(text).terms
    assert isinstance(term, Condition)
    assert all(map(term.holds, met))
    assert not any(map(term.holds, not_met))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("lr>fast", "lr>fast: a number must follow >, not 'fast'."),
        ("loss<nan", "loss<nan: a number must follow <, not 'nan'."),
        ("seed=", "seed=: a value must follow =, as in seed=3."),
        (">3", ">3: a name must stand before >, as in loss<2.5."),
        ('-""', '-"": there is no word between the quotes.'),
        ("lr=\0", r"'lr=\x00': no name or value has such a character."),
        ("\udc80", r"'\udc80': no name or value has such a character."),
    ],
)
def test_what_cannot_be_read_is_one_sentence_and_the_rest_applies(text: str, problem: str) -> None:
    search = parse(f"{text} gpt")
    assert (search.problems, search.terms) == ((problem,), (Word("gpt"),))


def test_a_search_of_too_many_or_too_long_terms_is_one_sentence() -> None:
    search = parse(" ".join(f"a.b.c.d.e{at}>1" for at in range(MAX_TERMS + 5)))
    assert search.problems == (f"A search has at most {MAX_TERMS} terms, and this one has {MAX_TERMS + 5}.",)
    assert len(search.terms) == MAX_TERMS
    assert parse(f"gpt {'x' * 300}").problems == (f"{'x' * 20}..: a term has at most 256 characters.",)


def test_a_quoted_operator_is_an_ordinary_character_and_archived_a_condition() -> None:
    assert parse('"a=b" archived').terms == (Word("a=b"), Condition("archived", Operator.CONTAINS, "yes"))
    assert parse("archived lr>1 x").without(["lr", "archived"]).terms == (Word("x"),)


SETTINGS = flattened(
    {"lr": 1, "optimizer": {"lr": 2, "betas": [0.9], "group": {"decay": 0}}, "decay": {"lr": 3}, "empty": {}}
)


def test_a_name_is_a_whole_path_or_else_every_last_component() -> None:
    assert settings_named(SETTINGS, "lr") == [1]
    assert settings_named(SETTINGS, "betas") == [[0.9]]
    assert settings_named({"a.lr": 1, "b.lr": 2, "blr": 3}, "lr") == [1, 2]
    assert settings_named(SETTINGS, "nothing") == []


def test_the_tags_of_people_replace_those_of_the_configuration() -> None:
    assert tags_of(None, {"tags": ["trial"]}) == ["trial"]
    assert tags_of(["paper"], {"tags": ["trial"]}) == ["paper"]
    assert tags_of([], {"tags": ["trial"]}) == []
    assert tags_of(None, {}) == tags_of(None, {"tags": "trial"}) == []
    assert tags_of(None, {"tags": [1, "trial", None]}) == ["trial"]
