"""Small mistakes put into a module's source, one at a time; pure.

A comparison turned, a bound moved by one, `and` for `or`, a sum for a difference, a
condition negated, a truth flipped, a statement or a returned value left out. Strings,
annotations and what stands outside functions are left alone, but for numbers in
constants.
"""

import ast
import copy
from collections.abc import Iterator
from typing import Any

import attrs

_TURNED: dict[type[ast.AST], Any] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}


@attrs.frozen
class Mutant:
    """A module's source with one mistake in it, on a line from 1."""

    line: int
    change: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Give every mutant of a source, in the order of its nodes."""
    tree = ast.parse(source)
    whole = ast.unparse(tree)
    nodes = list(ast.walk(tree))
    left_alone = {id(each) for root in _quiet(nodes) for each in ast.walk(root)}
    for index, node in enumerate(nodes):
        if id(node) in left_alone:
            continue
        for number, mistake in enumerate(_mistakes(node)):
            changed = copy.deepcopy(tree)
            place = list(ast.walk(changed))[index]
            again = list(_mistakes(place))[number]
            mutated = ast.unparse(_Swap(place, again).visit(changed))
            if mutated == whole:
                continue
            line = getattr(node, "lineno", 0)
            change = f"{ast.unparse(node)} -> {ast.unparse(mistake)}"
            yield Mutant(line, " ".join(change.split())[:160], mutated)


def _quiet(nodes: list[ast.AST]) -> Iterator[ast.AST]:
    """Give what is left alone, with all below it."""
    for node in nodes:
        match node:
            case ast.AnnAssign(annotation=annotation) | ast.arg(annotation=annotation):
                yield from filter(None, [annotation])
            case ast.FunctionDef(returns=returns, decorator_list=decorators):
                yield from [*filter(None, [returns]), *decorators]
            case ast.ClassDef(decorator_list=decorators):
                yield from decorators
            case ast.Expr(value=ast.Constant()) | ast.JoinedStr():
                yield node


def _mistakes(node: ast.AST) -> Iterator[ast.AST]:
    """Give what may stand in a node's place by mistake."""
    match node:
        case ast.Expr() | ast.AugAssign() | ast.Raise():
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()
        case ast.Return(value=ast.expr()):
            yield ast.Return(ast.Constant(None))
        case ast.If(test=test) | ast.While(test=test):
            negated = copy.copy(node)
            negated.test = ast.UnaryOp(ast.Not(), test)
            yield negated
        case ast.expr():
            yield from _turned(node)


def _turned(node: ast.expr) -> Iterator[ast.expr]:
    """Give an expression of the same kind that means something else."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in _TURNED:
            yield ast.Compare(node.left, [_TURNED[type(op)]()], node.comparators)
        case ast.BoolOp(op=op) if type(op) in _TURNED:
            yield ast.BoolOp(_TURNED[type(op)](), node.values)
        case ast.BinOp(op=op) if type(op) in _TURNED:
            yield ast.BinOp(node.left, _TURNED[type(op)](), node.right)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand


@attrs.define
class _Swap(ast.NodeTransformer):
    """Puts one node in another's place."""

    place: ast.AST
    mistake: ast.AST

    def visit(self, node: ast.AST) -> ast.AST:
        """Swap the node, or look below it."""
        if node is self.place:
            return ast.fix_missing_locations(ast.copy_location(self.mistake, node))
        return self.generic_visit(node)
