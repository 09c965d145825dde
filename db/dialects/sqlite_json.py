"""Conditions on JSON in SQLite, by its table-valued functions."""

import json
from typing import Any

import sqlalchemy as sa

from db.dialects.json_conditions import Column, JsonConditions, Test, ValueTest, key_paths
from lossguard.vocabulary.run_search import Operator

LOWER = "lossguard_lower"
"""A function that `db.dialects.sqlite` adds: SQLite's own changes ASCII letters only."""
_COMPARED = {Operator.LESS: "<", Operator.AT_MOST: "<=", Operator.GREATER: ">", Operator.AT_LEAST: ">="}
_NUMBERS = ("integer", "real")
_NAMES = {True: "true", False: "false", None: "null"}


class SQLiteJson(JsonConditions):
    def member(self, column: Column, key: str, test: ValueTest) -> Test:
        if '"' not in key:
            return _known(_value_at(column, (key,), test))
        each = sa.func.json_each(_valid(column)).table_valued("key", "type", "atom").alias()  # no path can name it
        return _known(sa.exists().select_from(each).where(each.c.key == key, _passes(each.c, test)))

    def element(self, column: Column, test: ValueTest, *, of: str | None = None) -> Test:
        path = _path(()) if of is None else _path((of,))
        return _known(sa.and_(sa.func.json_type(_valid(column), path) == "array", _any(column, path, test)))

    def setting(self, column: Column, name: str, test: ValueTest | None = None) -> Test:
        paths = key_paths(name)
        is_exact = sa.or_(*(sa.func.json_type(_valid(column), _path(keys)).is_not(None) for keys in paths))
        ends = _ends_with(column, name, test)
        at_path = is_exact if test is None else sa.or_(*(_value_at(column, keys, test) for keys in paths))
        found = sa.case((is_exact, at_path), else_=ends)
        return sa.case((_may_have(column, name), _known(found)), else_=sa.false())

    def text(self, column: Column, key: str) -> sa.ColumnElement[str | None]:
        found = sa.func.json_extract(_valid(column), _path((key,)), type_=sa.Text())
        return sa.case((sa.func.json_type(_valid(column), _path((key,))) == "text", found))

    def member_text(self, column: Column, key: str) -> sa.ColumnElement[str | None]:
        found = sa.func.json_extract(_valid(column), _path((key,)))
        return sa.case((sa.func.json_type(_valid(column), _path((key,))).in_(("array", "object")), found))


def _valid(column: Column) -> Column:
    """An old row that is no JSON must not fail the whole query."""
    return sa.case((sa.func.json_valid(column), column))


def _known(test: Test) -> Test:
    return sa.func.coalesce(test, sa.false())


def _may_have(column: Column, name: str) -> Test:
    """Quick to see: whether the text has such a key at all."""
    key = name.rpartition(".")[2]
    return sa.func.instr(column, f'{key}"') > 0 if key.isascii() and json.dumps(key) == f'"{key}"' else sa.true()


def _path(keys: tuple[str, ...]) -> str:
    return "$" + "".join(f'."{key}"' for key in keys)


def _value_at(column: Column, keys: tuple[str, ...], test: ValueTest) -> Test:
    return _any(column, _path(keys), test)


def _any(column: Column, path: str, test: ValueTest) -> Test:
    """Of a list, json_each has the elements; of a plain value, the value."""
    each = sa.func.json_each(_valid(column), path).table_valued("type", "atom").alias()
    return sa.exists().select_from(each).where(_passes(each.c, test))


def _ends_with(column: Column, name: str, test: ValueTest | None) -> Test:
    """Over all values; the path of an element is that of its list. A path is written $.optimizer.lr or $."a b".lr."""
    each = sa.func.json_tree(_valid(column)).table_valued("key", "type", "atom", "path", "fullkey").alias()
    is_element, last = sa.func.typeof(each.c.key) == "integer", name.rpartition(".")[2]
    plain = sa.func.replace(sa.case((is_element, each.c.path), else_=each.c.fullkey), '"', "")
    # Keys may be stored with escapes, and are shown so in paths.
    endings = {f".{name}", "." + json.dumps(name)[1:-1]}
    has_path = sa.or_(*(sa.func.substr(plain, -len(ending)) == ending for ending in sorted(endings)))
    # To compare keys costs a third of comparing paths.
    has_key = sa.or_(is_element, each.c.key == last, sa.func.substr(each.c.key, -len(last) - 1) == f".{last}")
    found = sa.case((has_key, has_path), else_=sa.false())
    conditions = [found] if test is None else [found, _passes(each.c, test)]
    return sa.exists().select_from(each).where(*conditions)


def _passes(value: Any, test: ValueTest) -> Test:
    """`value`: the columns of json_each or json_tree."""
    is_number, is_text, atom = value.type.in_(_NUMBERS), value.type == "text", value.atom
    tests: list[Test] = []
    if test.order is not None:
        operator, limit = test.order
        tests.append(sa.and_(is_number, sa.type_coerce(atom, sa.Float).op(_COMPARED[operator])(limit)))
    if test.number is not None:
        tests.append(sa.and_(is_number, atom == test.number))
    if test.text is not None:
        lower = getattr(sa.func, LOWER)(atom)
        tests.append(sa.and_(is_text, lower == test.text if test.is_whole else sa.func.instr(lower, test.text) > 0))
    if test.exactly:
        tests.append(sa.and_(is_text, atom.in_(sorted(test.exactly))))
    if test.constants:
        tests.append(value.type.in_([_NAMES[one] for one in test.constants]))
    return sa.or_(sa.false(), *tests)
