"""Conditions on JSON in PostgreSQL, as SQL/JSON paths."""

import json
import re
from collections.abc import Iterable

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
        key = name.rpartition(".")[2]
        plain, dotted = (_exists(column, _setting(name, test, dotted=dotted)) for dotted in (False, True))
        if not key.isascii() or json.dumps(key) != f'"{key}"':
            return dotted
        # Quick to see: whether the text has such a key at all. CASE keeps this order, which AND does not promise.
        text = sa.cast(column, sa.Text)
        has_dotted, has_any = (sa.func.strpos(text, f'{start}{key}"') > 0 for start in (".", ""))
        return sa.case((has_dotted, dotted), (has_any, plain), else_=sa.false())

    def text(self, column: Column, key: str) -> sa.ColumnElement[str | None]:
        found = sa.func.json_extract_path_text(column, key, type_=sa.Text())
        return sa.case((sa.func.json_typeof(sa.func.json_extract_path(column, key)) == "string", found))

    def member_text(self, column: Column, key: str) -> sa.ColumnElement[str | None]:
        found = sa.func.json_extract_path(column, key)
        return sa.case((sa.func.json_typeof(found).in_(("array", "object")), sa.cast(found, sa.Text)))


def _exists(column: Column, path: str, *, strict: bool = False) -> Test:
    """Silent: what the path does not fit has nothing of it."""
    written = sa.cast(sa.literal(f"{'strict' if strict else 'lax'} {path}"), JSONPATH)
    found = sa.func.jsonb_path_exists(sa.cast(column, JSONB), written, sa.literal_column("'{}'::jsonb"), sa.true())
    return sa.func.coalesce(found, sa.false())


def _setting(name: str, test: ValueTest | None, *, dotted: bool) -> str:
    """`dotted`: also where the last key is itself a dotted path that ends so, which takes longer."""
    passes = "" if test is None else f"[*] ? ({_passes(test)})"
    paths = [".".join(map(_text, keys)) for keys in key_paths(name)]
    is_exact = _any(f"exists(@.{path})" for path in paths)
    at_path = _any(f"exists(@.{path}{passes})" for path in paths)
    ends = [f"exists(@.**.{path}{passes})" for path in paths]
    if dotted:
        objects, key = '@.** ? (@.type() == "object")', f"@.key like_regex {_text(_ending(name))}"
        ends.append(f"exists({objects}.keyvalue() ? ({key}).value{passes})")
    return f"$ ? (({is_exact}) && ({at_path}) || !({is_exact}) && ({_any(ends)}))"


def _ending(name: str) -> str:
    return f"{_literal('.' + name)}$"


def _any(tests: Iterable[str]) -> str:
    return " || ".join(tests)


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
