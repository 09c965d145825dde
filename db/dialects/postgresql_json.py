"""Conditions on JSON in PostgreSQL, as SQL/JSON paths."""

import json
import re

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH

from db.dialects.json_conditions import Column, JsonConditions, Test, ValueTest, key_paths

_CONSTANTS = {True: "true", False: "false", None: "null"}


class PostgreSQLJson(JsonConditions):
    def member(self, column: Column, key: str, test: ValueTest) -> Test:
        return _exists(column, f"$.{_text(key)}[*] ? ({_passes(test)})")

    def element(self, column: Column, test: ValueTest, *, of: str | None = None) -> Test:
        start = "$" if of is None else f"$.{_text(of)}"
        return _exists(column, f'{start} ? (@.type() == "array")[*] ? ({_passes(test)})', strict=True)

    def setting(self, column: Column, name: str, test: ValueTest | None = None) -> Test:
        paths = [".".join(map(_text, keys)) for keys in key_paths(name)]
        is_exact = _any(f"exists(@.{path})" for path in paths)
        at_path = is_exact if test is None else _any(f"exists(@.{path}[*] ? ({_passes(test)}))" for path in paths)
        ends = _any(_ends_with(name, paths, "" if test is None else f"[*] ? ({_passes(test)})"))
        found = _exists(column, f"$ ? (({is_exact}) && ({at_path}) || !({is_exact}) && ({ends}))")
        return sa.and_(_may_have(column, name), found)

    def member_text(self, column: Column, key: str) -> sa.ColumnElement[str | None]:
        found = sa.func.json_extract_path(column, key)
        return sa.case((sa.func.json_typeof(found).in_(("array", "object")), sa.cast(found, sa.Text)))


def _exists(column: Column, path: str, *, strict: bool = False) -> Test:
    """Silent: what the path does not fit has nothing of it."""
    written = sa.cast(sa.literal(f"{'strict' if strict else 'lax'} {path}"), JSONPATH)
    found = sa.func.jsonb_path_exists(sa.cast(column, JSONB), written, sa.literal_column("'{}'::jsonb"), sa.true())
    return sa.func.coalesce(found, sa.false())


def _may_have(column: Column, name: str) -> Test:
    """Quick to see: whether the text has such a key at all."""
    key = name.rpartition(".")[2]
    if not key.isascii() or json.dumps(key) != f'"{key}"':
        return sa.true()
    return sa.func.strpos(sa.cast(column, sa.Text), f'{key}"') > 0


def _ends_with(name: str, paths: list[str], test: str) -> list[str]:
    """At any depth: keys in a row, the first of which may itself be a dotted path that ends so."""
    dotted = f'@.** ? (@.type() == "object").keyvalue() ? (@.key like_regex {_text(_ending(name))}).value{test}'
    return [*(f"exists(@.**.{path}{test})" for path in paths), f"exists({dotted})"]


def _ending(name: str) -> str:
    return f"{_literal('.' + name)}$"


def _any(tests: object) -> str:
    return " || ".join(tests)  # type: ignore[arg-type]


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _literal(text: str) -> str:
    """A regular expression for this text."""
    return re.sub(r"([^\w\s])", r"\\\1", text)


def _passes(test: ValueTest) -> str:
    tests = []
    if test.order is not None:
        operator, limit = test.order
        tests.append(f"@ {operator} {_number(limit)}")
    if test.number is not None:
        tests.append(f"@ == {_number(test.number)}")
    if test.text is not None:
        pattern = f"^{_literal(test.text)}$" if test.is_whole else _literal(test.text)
        tests.append(f'@ like_regex {_text(pattern)} flag "i"')
    tests += [f"@ == {_text(text)}" for text in sorted(test.exactly)]
    tests += [f"@ == {_CONSTANTS[one]}" for one in sorted(test.constants, key=str)]
    return _any(tests) if tests else "1 == 0"


def _number(value: float) -> str:
    if value in (float("inf"), float("-inf")):
        return "1e400" if value > 0 else "-1e400"
    return repr(value)
