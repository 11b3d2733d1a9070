"""Small faults in a source, for `mutants.py`: each is a module with one of them."""

import ast
import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
Change = Callable[[ast.AST], ast.AST | None]
"""Turns a node into another one; None leaves it out."""


class Mutant(NamedTuple):
    """A module with one fault.

    Attributes:
      line: where.
      what: the fault in words.
      before: the source of the node that has it.
      source: of the whole module.
    """

    line: int
    what: str
    before: str
    source: str


class Named(NamedTuple):
    """A fault that once survived.

    Attributes:
      name: what it is.
      module: where.
      before, after: text that is there once, and what the fault makes of it.
      tests: files that must notice.
    """

    name: str
    module: str
    before: str
    after: str
    tests: list[str]

    def source(self, whole: str) -> str:
        """Return the module with the fault.

        Raises:
          ValueError: if the text is not there exactly once.
        """
        if whole.count(self.before) != 1:
            raise ValueError(f"{self.name}: {self.before!r} is not once in the module")
        return whole.replace(self.before, self.after)


NAMED = (
    Named(
        "prior_inflation dropped from the posterior",
        "klip_jax.guidance.conditional_gaussian",
        "return self.prior_inflation * denoiser.variance(sigma)",
        "return denoiser.variance(sigma)",
        ["tests/guidance/test_conditional_gaussian.py"],
    ),
    Named(
        "the mask dropped from the region of localization",
        "klip_jax.report.maps",
        "getattr(images, name) | masks",
        "getattr(images, name)",
        ["tests/report/test_evaluate.py"],
    ),
    Named(
        '"seed" among the settings that may change',
        "klip_jax.run.settings",
        'FREE = ("run",)',
        'FREE = ("run", "seed")',
        ["tests/run/test_claim.py"],
    ),
    Named(
        "white noise's share dropped from the filtered term",
        "klip_jax.kl",
        "passed = white_noise_passed(filter_width).astype(v.dtype)",
        "passed = 1.0",
        ["tests/test_kl.py"],
    ),
)


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    seen = {ast.unparse(tree)}
    for at, node in enumerate(_code(tree)):
        for what, change in changes(node):
            other = copy.deepcopy(tree)
            target = list(_code(other))[at]
            changed = ast.fix_missing_locations(_Replace(target, change).visit(other))
            text = ast.unparse(changed)
            if text not in seen:
                seen.add(text)
                before = " ".join(ast.unparse(node).split())
                yield Mutant(node.lineno, what, before[:100].replace("|", "\\|"), text)


def changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """Yield (words, change) of every fault that a node may have."""
    match node:
        case ast.BinOp(op=ast.BitOr() | ast.BitAnd()):
            yield "right side dropped", lambda n: n.left
            yield "left side dropped", lambda n: n.right
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in SWAPS:
            yield "operator turned", _with(op=SWAPS[type(op)]())
        case ast.Compare(ops=[op]) if type(op) in SWAPS:
            yield "comparison turned", _with(ops=[SWAPS[type(op)]()])
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield "sign or negation dropped", lambda n: n.operand
        case ast.Constant(value=bool(value)):
            yield "truth turned", _with(value=not value)
        case ast.Constant(value=int(value)):
            yield "one more", _with(value=value + 1)
        case ast.Constant(value=float(value)):
            yield "another number", _with(value=2 * value + 1)
        case ast.Call(keywords=keywords):
            for i, keyword in enumerate(keywords):
                rest = keywords[:i] + keywords[i + 1 :]
                yield f"{keyword.arg} not passed", _with(keywords=rest)
        case ast.If(body=[ast.Raise()], orelse=[]):
            yield "check left out", lambda n: None
        case ast.If() | ast.IfExp():
            yield "condition negated", lambda n: _negated(n)
        case ast.AugAssign():
            yield "left out", lambda n: None
        case ast.Tuple(elts=[_, _, *_] as elts, ctx=ast.Load()):
            if all(isinstance(e, ast.Constant) for e in elts):
                yield "last element dropped", _with(elts=elts[:-1])


def _with(**fields) -> Change:
    def change(node):
        for name, value in fields.items():
            setattr(node, name, copy.deepcopy(value))
        return node

    return change


def _negated(node):
    node.test = ast.UnaryOp(ast.Not(), node.test)
    return node


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that compute: no annotations, messages or decorators."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "exc"):
            continue
        if isinstance(tree, ast.Subscript) and _is_shape(tree):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                if hasattr(child, "lineno") and not isinstance(child, ast.expr_context):
                    yield child
                yield from _code(child)


def _is_shape(node: ast.Subscript) -> bool:
    """Return whether it is an annotation such as Float[Array, "h w"]."""
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else []
    return any(isinstance(p, ast.Constant) and isinstance(p.value, str) for p in parts)


class _Replace(ast.NodeTransformer):
    def __init__(self, target, change):
        self.target, self.change = target, change

    def visit(self, node):
        if node is not self.target:
            return self.generic_visit(node)
        changed = self.change(node)
        if changed is None:
            return ast.copy_location(ast.Pass(), node)
        return changed
