"""Words and conditions, as people write them into the search of runs."""

import math
from typing import Any

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

RUN: dict[str, list[Any]] = {
    "state": ["running"],
    "project": ["gpt-small"],
    "tag": ["baseline", "sweep 3"],
    "lr": [3e-4, 1e-3],
    "seed": [7],
    "loss": [math.nan],
    "fused": [True],
    "betas": [[0.9, 0.95]],
    "steps": [12_000],
}
NAMES = st.from_regex(r"[a-z_][\w.]*", fullmatch=True)
TEXTS = st.text(st.characters(exclude_characters='"', exclude_categories=["Cs"]), min_size=1)
TERMS = st.one_of(
    st.builds(Word, TEXTS, st.booleans()),
    st.builds(
        Condition, NAMES, st.sampled_from([Operator.CONTAINS, Operator.EQUAL, Operator.NOT_EQUAL]), TEXTS, st.booleans()
    ),
    st.builds(Condition, NAMES, st.sampled_from(list(run_search.ORDERS)), st.floats(allow_nan=False).map(str)),
)


def matches(text: str) -> bool:
    return parse(text).matches("GPT-small r1 the long note", lambda name: RUN.get(name, []))


@given(st.text())
def test_any_text_is_read_and_written_again_as_the_same_terms(text: str) -> None:
    search = parse(text)
    assert parse(str(search)).terms == search.terms
    assert search.matches(text, lambda _: [1, "a", None, [math.nan], {"b": 2}]) in (True, False)


@pytest.mark.slow
@given(st.lists(TERMS, max_size=MAX_TERMS))
def test_terms_are_read_as_they_were_written(terms: list[Word | Condition]) -> None:
    assert parse(str(Search(tuple(terms)))) == Search(tuple(terms))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpt R1",
        '"long note"',
        "-debug",
        "state:running project:gpt tag:BASELINE seed=7 lr>=1e-3 lr<1e-3 -seed=8 seed!=8 nobody!=1",
        'tag="sweep 3"',
        "loss=nan fused:yes fused=true betas:0.95 steps>=12k steps<1M -archived",
    ],
)
def test_a_run_matches_when_every_term_does(text: str) -> None:
    assert parse(text).problems == ()
    assert matches(text)


@pytest.mark.parametrize(
    "text",
    [
        *("gpt nobody", "-gpt", "project=gpt", "seed:77", "lr>1e-3", "loss<9", "loss>0", "-fused:yes", "seed!=7"),
        "nobody:1",
    ],
)
def test_a_run_does_not_match_when_one_term_does_not(text: str) -> None:
    assert not matches(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("lr>fast", "lr>fast: a number must follow >, not 'fast'."),
        ("loss<nan", "loss<nan: a number must follow <, not 'nan'."),
        ("seed=", "seed=: a value must follow =, as in seed=3."),
        (">3", ">3: a name must stand before >, as in loss<2.5."),
        ('-""', '-"": there is no word between the quotes.'),
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
