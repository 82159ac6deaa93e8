"""What a condition may say. It comes from a command line, a page or a recipe, and must not stop the program.

DuckDB's own parser reads it. A condition is refused that is long or deep, that asks for more than the columns of a row,
or that calls a function whose result or whose work may be much larger than what it is given.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterator
from typing import Any

import duckdb

from tastemaker.errors import ConfigurationError

MAX_CHARACTERS, MAX_BRACKETS = 4000, 250
"""DuckDB's parser takes memory and time that grow with the square of the signs or open brackets without an end."""

APART = "/* in a child process */"
"""SQL with this comment is answered by a process that can be killed; see `tastemaker.scores.database.Database`."""

MAX_COLUMNS = 20
"""A condition without functions that names more columns than this is answered there, too."""

_KINDS = {"CONSTANT", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "BETWEEN", "OPERATOR", "CASE", "CAST", "TYPE"}
_KINDS |= {"FUNCTION"}
_NAMES = {"SUBQUERY": "another query", "LAMBDA": "a lambda (for JSON: json ->> 'key')", "PARAMETER": "parameters"}
_OPERATORS = {"OPERATOR_NOT", "OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL", "OPERATOR_COALESCE"}
_OPERATORS |= {"COMPARE_IN", "COMPARE_NOT_IN", "ARRAY_EXTRACT", "ARRAY_SLICE", "STRUCT_EXTRACT"}
_TYPES = {"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "VARCHAR"}
_TYPES |= {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "DATE", "TIME", "TIMESTAMP"}
_REGEXPS = {"regexp_matches", "regexp_full_match", "regexp_extract"}
_PATHS = {"json_extract", "json_extract_string", "json_exists", "json_type", "json_array_length", "->>"}
_OTHERS = """
+ - * / // % ** ^ & | ~ << >> ~~ !~~ ~~* !~~*
abs ceil ceiling exp floor greatest isfinite isinf isnan least ln log log10 log2 mod pow power round sign sqrt trunc
contains ends_with instr left len length lower ltrim nullif position prefix right rtrim split_part starts_with strlen
strpos substr substring suffix trim upper
array_contains array_extract hash json_valid list_contains list_extract list_has list_position struct_extract
date_part day hour month year
rank_average
"""
_OF_A_ROW = {"min": "least", "max": "greatest"}
"""What somebody may write -> what DuckDB calls it. Its own ``min`` and ``max`` are of a whole column."""

FUNCTIONS = {*_REGEXPS, *_PATHS, *_OTHERS.split(), "field"}
"""What a condition may call. DuckDB's names of ``LIKE`` and ``ILIKE`` are ``~~`` and ``~~*``."""

_FIELD = re.compile(rb"""(?i)field\s*\(\s*'([^'"\\]+)'\s*\)""")
_BEFORE = "SELECT 1 FROM rows WHERE\n"

_QUICK = {"", *"+-*/%"}


class Condition(str):
    """SQL over the columns of a row that was checked, or was made by the program itself."""

    __slots__ = ()


def check_condition(text: str, cursor: duckdb.DuckDBPyConnection, columns: Collection[str]) -> Condition:
    """Return a condition or another expression that somebody wrote, once it is sure that it may be asked.

    Args:
        text: In DuckDB's SQL, in which ``min(a, b)`` and ``max(a, b)`` are those of a row, and ``field('licence')`` is
            a column, or else a field of the column ``json``.
        cursor: Parses it; nothing is run.
        columns: Of the table.

    Raises:
        ConfigurationError: It is no single condition, or says more than one may say.
    """
    shown = repr(text if len(text) <= 200 else f"{text[:197]}...")
    if len(text) > MAX_CHARACTERS:
        raise ConfigurationError(f"the condition {shown} has {len(text):,} characters; {MAX_CHARACTERS:,} is the limit")
    brackets = len(re.findall(r"[(\[{]", text))
    if brackets > MAX_BRACKETS:
        raise ConfigurationError(f"the condition {shown} has {brackets:,} brackets; {MAX_BRACKETS:,} is the limit")
    try:
        tree = _parse(text, cursor)
        problem = _find_problem(tree)
        translated = text if problem else _translate(text, tree, columns)
    except (ValueError, RecursionError) as error:
        why = re.sub(r"^syntax error at (or near (?P<sign>.+)|end of input)$", _say_where, str(error))
        raise ConfigurationError(f"the condition {shown} cannot be read: {why}") from None
    if problem:
        raise ConfigurationError(f"the condition {shown} may not use {problem}: docs/score-table.md says what it may")
    return Condition(translated if _is_quick(tree) else f"{translated}\n{APART}")


def explain_refusal(message: str, columns: Collection[str]) -> str:
    """Return why DuckDB does not answer a query, in words for people who know the columns and not DuckDB.

    Args:
        message: DuckDB's.
        columns: Of the table.

    Example:
        >>> explain_refusal('Binder Error: Referenced column "widht" not found in FROM clause!', ["width"])
        'there is no column widht; is width meant?'
    """
    if match := re.search(r'Referenced column "(.+?)" not found', message):
        near = difflib.get_close_matches(match[1].lower(), columns, 1)
        hint = f"is {near[0]} meant?" if near else f"a text has single quotes: '{match[1]}'"
        return f"there is no column {match[1]}; {hint}"
    if match := re.search(r"Could not convert string ('.*?') to (U?INT|FLOAT|DOUBLE|DECIMAL)", message):
        return f"{match[1]} is no number"
    if "window function" in message:
        return "rank_average ranks all images: cut by it (--rank-by, or a step 'rank_average(a, b) top 20%')"
    if "Cannot compare values of type" in message:
        return "a text is compared with a number: put ::DOUBLE behind the text, or the number in single quotes"
    if match := re.search(r"No function matches the given name and argument types '(.+?)\(", message):
        return f"{match[1]} does not go with such values"
    return _first_line(message).partition(" Error: ")[2] or _first_line(message)


def _parse(text: str, cursor: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Return the tree of a condition. It stands alone: brackets around it would close one that it opens."""
    try:
        (stored,) = cursor.execute(
            "SELECT json_serialize_sql($1::VARCHAR, skip_null := true, skip_empty := true)",
            [f"{_BEFORE}{text}"],
        ).fetchall()[0]
    except duckdb.Error as error:
        raise ValueError(_first_line(error)) from None
    parsed = json.loads(stored)
    if parsed["error"] and parsed["error_type"] == "parser":
        raise ValueError(_first_line(parsed["error_message"]))
    statements = parsed.get("statements", [])
    node = statements[0]["node"] if len(statements) == 1 else {}
    known = {"type", "cte_map", "select_list", "from_table", "where_clause", "aggregate_handling"}
    if node.keys() - known or node.get("type") != "SELECT_NODE" or node["from_table"]["type"] != "BASE_TABLE":
        raise ValueError("it is more than one condition")
    tree: dict[str, Any] = node["where_clause"]
    return tree


def _translate(text: str, tree: dict[str, Any], columns: Collection[str]) -> str:
    """Return a condition as DuckDB is to read it: with `_OF_A_ROW`, and without ``field``."""
    calls = {node["query_location"]: _name_of(node) for node in _nodes(tree) if _name_of(node) in {*_OF_A_ROW, "field"}}
    written = f"{_BEFORE}{text}".encode()  # DuckDB counts bytes
    for place, name in sorted(calls.items(), reverse=True):
        call = written[place:]
        if name in _OF_A_ROW:
            call = re.sub(rb"(?i)" + name.encode(), _OF_A_ROW[name].encode(), call, count=1)
        elif found := _FIELD.match(call):
            call = _look_up(found[1].decode(), columns).encode() + call[found.end() :]
        else:
            raise ValueError("a field is the name of one in single quotes: field('licence')")
        written = written[:place] + call
    return written.decode().removeprefix(_BEFORE)


def _look_up(name: str, columns: Collection[str]) -> str:
    """Return SQL for a column or else for a field of the JSON beside a picture, a text; NULL where there is neither."""
    places = [f'"{name}"::VARCHAR'] if name.lower() in {column.lower() for column in columns} else []
    places += [f"json ->> '$.\"{name}\"'"] if "json" in columns else []
    return f"coalesce({', '.join([*places, 'NULL::VARCHAR'])})"


def _say_where(match: re.Match[str]) -> str:
    return f"something is missing or wrong at {match['sign']}" if match["sign"] else "its end is missing"


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0]


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON
    """Yield every expression and type of a tree."""
    if isinstance(tree, dict) and "class" in tree:
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(child)


def _find_problem(tree: dict[str, Any]) -> str:
    """Return what of a tree a condition may not use; empty where there is nothing."""
    return next(filter(None, map(_refuse, _nodes(tree))), "")


def _is_quick(tree: dict[str, Any]) -> bool:
    """Return whether a condition takes no time to speak of for any row, however long its texts are."""
    nodes = list(_nodes(tree))
    columns = sum(node["class"] == "COLUMN_REF" for node in nodes)
    return columns <= MAX_COLUMNS and all(_name_of(node) in _QUICK and node["class"] != "CAST" for node in nodes)


def _refuse(node: dict[str, Any]) -> str:
    """Return what of one node is refused: its kind, the operator, the type or the function."""
    kind, name = node["class"], _name_of(node)
    if kind not in _KINDS:
        return str(_NAMES.get(kind, kind.lower()))
    if kind == "OPERATOR" and node["type"] not in _OPERATORS:
        return str(node["type"]).lower().replace("_", " ")
    if kind == "TYPE" and node["type_name"].upper() not in _TYPES:
        return f"the type {node['type_name']}"
    if name in _OF_A_ROW and len(node.get("arguments", [])) < 2:
        return f"{name}() of a whole column; in a row it has two values or more"
    if name and name not in {*FUNCTIONS, *_OF_A_ROW}:
        return f"{name}()"
    if name not in _REGEXPS | _PATHS:
        return ""
    pattern = _pattern_of(node)
    if pattern is None:
        return f"{name}() with a pattern that is no plain text"
    looks_everywhere = name in _PATHS and re.search(r"\.\.|\*\*", re.sub(r'"[^"]*"', "", pattern))
    return "a path of JSON that looks everywhere" if looks_everywhere else ""


def _name_of(node: dict[str, Any]) -> str:
    return str(node.get("function_name", "")).lower()


def _pattern_of(node: dict[str, Any]) -> str | None:
    """Return the text that is the second argument of a function; None where that is no text."""
    arguments = node.get("arguments", [])
    if len(arguments) < 2:
        return ""
    literal = arguments[1]["expression"].get("literal", {})
    return str(literal.get("text", "")) if literal.get("kind") in ("STRING", "INTEGER") else None
