"""The mutants of a source file: one operator, number, condition or call changed in each."""

from __future__ import annotations

import ast
import copy
import hashlib
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_NEGATED_BY_COMPARISON = (ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.Is, ast.IsNot)
"""Conditions that another mutant already negates"""
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.Div: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.Pow: ast.Mult,
}  # fmt: skip
_CALLS = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any"}
_INDICES = {"epoch", "step", "stage", "seed", "source", "key", "first", "first_row"}
"""Arguments of these names are replaced by 0"""


@dataclass(frozen=True)
class Mutant:
    """One changed place of one source file."""

    path: str
    """relative to the repository"""
    line: int
    scope: str
    """class and function that contain it"""
    function_line: int
    """first line of that function, decorators included"""
    function_hash: str
    """hash of that function before the change, without comments"""
    before: str
    after: str
    repeat: int
    """number of earlier mutants with the same function and text"""
    place: int
    """index of the mutant among those of its file"""

    @property
    def key(self) -> str:
        """Identify the mutant independently of line numbers."""
        return f"{self.path}::{self.scope}::{self.before} => {self.after}" + f" #{self.repeat + 1}" * (self.repeat > 0)


def mutants_of(path: Path) -> list[Mutant]:
    """Return every mutant of a source file, in the order of the file."""
    return [mutant for mutant, _ in _with_trees(path)]


def code_of(mutant: Mutant) -> types.CodeType:
    """Compile the mutated file."""
    path = REPOSITORY / mutant.path
    tree = next(tree for found, tree in _with_trees(path) if found.place == mutant.place)
    return compile(ast.fix_missing_locations(tree), str(path), "exec")


def _with_trees(path: Path) -> Iterator[tuple[Mutant, ast.Module]]:
    """Yield each mutant with the tree of its file, which has the change until the next iteration."""
    tree = ast.parse(path.read_text())
    seen: Counter[tuple[str, str, str]] = Counter()
    hashes: dict[tuple[str, int], str] = {}
    for scope, function, node in _mutable(tree):
        first = min((function.lineno, *(decorator.lineno for decorator in function.decorator_list)))
        if (scope, first) not in hashes:
            hashes[scope, first] = hashlib.sha256(ast.unparse(function).encode()).hexdigest()[:16]
        before = ast.unparse(_shown(node))[:160]
        for owner, attribute, value in _changes(node):
            original = copy.deepcopy(getattr(owner, attribute))
            setattr(owner, attribute, value)
            after = ast.unparse(_shown(node))[:160]
            if after != before:
                text = (scope, before, after)
                name, place = str(path.relative_to(REPOSITORY)), sum(seen.values())
                mutant = Mutant(name, node.lineno, scope, first, hashes[scope, first], before, after, seen[text], place)
                yield mutant, tree
                seen[text] += 1
            setattr(owner, attribute, original)


def _shown(node: Any) -> Any:
    return node.test if isinstance(node, ast.If | ast.While) else node


def _mutable(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef, Any]]:
    """Yield (scope, function, node) for all mutable code, without annotations, docstrings, messages and decorators."""

    def walk(node: ast.AST, scope: str, function: ast.FunctionDef | None) -> Iterator[tuple[str, ast.FunctionDef, Any]]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inner = f"{scope}.{node.name}".lstrip(".")
            for child in node.body:
                yield from walk(child, inner, node if isinstance(node, ast.FunctionDef) else None)
            return
        if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Assert):
            return
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                yield from walk(node.value, scope, function)
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if function:  # other constants name formats and tags, or are defaults; tests compare files with them
            yield scope, function, node
        for child in ast.iter_child_nodes(node):
            yield from walk(child, scope, function)

    for statement in tree.body:
        yield from walk(statement, "", None)


def _changes(node: Any) -> Iterator[tuple[Any, str, Any]]:
    """Yield (owner, attribute, new value) for the changes of one node."""
    if isinstance(node, ast.Compare):
        new = _COMPARISONS.get(type(node.ops[0]))
        if new:
            yield node, "ops", [new(), *node.ops[1:]]
    elif isinstance(node, ast.BinOp | ast.AugAssign):
        new_operator = _ARITHMETIC.get(type(node.op))
        if new_operator:
            yield node, "op", new_operator()
    elif isinstance(node, ast.BoolOp):
        yield node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield node, "value", not node.value
        elif isinstance(node.value, int | float):
            yield node, "value", node.value + 1
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        test = node.test
        if not (isinstance(test, ast.Compare) and isinstance(test.ops[0], _NEGATED_BY_COMPARISON)):
            yield node, "test", ast.UnaryOp(ast.Not(), test)
    elif isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in _CALLS:
            owner, attribute = (node.func, "id") if isinstance(node.func, ast.Name) else (node.func, "attr")
            yield owner, attribute, _CALLS[name]
        for i, argument in enumerate(node.args):
            if isinstance(argument, ast.Name) and argument.id in _INDICES:
                yield node, "args", [*node.args[:i], ast.Constant(0), *node.args[i + 1 :]]
