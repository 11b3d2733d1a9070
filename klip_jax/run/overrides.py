"""Settings on the command line that a locked config cannot take: whole dicts, and None.

    --config.detectors=klip,controls,msma.MSMA
    --config.detectors.mine="dict(name='mine.score:Mine', width=3)"
    --config.posterior.sampler="dict(name='ddim.DDIM', eta=1.0)"
    --config.scan=None

Values are literals; nothing that is given is ever run.
"""

import ast
import re
from collections.abc import Sequence
from typing import Any

from klip_jax.run.settings import detectors
from klip_jax.spelling import short

_ARGUMENT = re.compile(r"--?config\.([\w.-]+)=(.*)", re.DOTALL)


def split(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Split arguments into those for absl, and (setting, text) of ours."""
    rest, ours = [], []
    for argument in arguments:
        match = _ARGUMENT.fullmatch(argument)
        if match and (match[1] == "detectors" or _is_whole(match[2])):
            ours.append((match[1], match[2]))
        else:
            rest.append(argument)
    return rest, ours


def apply(settings: dict[str, Any], ours: Sequence[tuple[str, str]]) -> None:
    """Set what `split` found, in `settings`.

    Raises:
      ValueError: if there is no such setting, or the text is no literal.
    """
    # The list of detectors comes first: others may change one of them.
    for path, text in sorted(ours, key=lambda pair: pair[0] != "detectors"):
        if path == "detectors":
            chosen = literal(text) if _is_whole(text) else text
            settings[path] = detectors(chosen, settings[path])
            continue
        *parts, last = path.split(".")
        target: Any = settings
        for part in parts:
            target = target.get(part) if isinstance(target, dict) else None
        new = parts == ["detectors"]
        if not isinstance(target, dict) or (last not in target and not new):
            raise ValueError(f"command line: the config has no setting {short(path)}")
        target[last] = literal(text)


def literal(text: str) -> Any:
    """Return the value of a Python literal; dict(a=1) is one too.

    Raises:
      ValueError: if it is anything else, or a key stands twice.
    """
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"command line: {short(text)} is no literal such as dict(name='a.B', c=1) "
            f"({str(error)[:100]})"
        ) from None


def _is_whole(text: str) -> bool:
    text = text.strip()
    return text == "None" or text.startswith("{") or bool(re.match(r"dict\s*\(", text))


def _value(node: ast.AST) -> Any:
    if isinstance(node, ast.Dict):
        pairs = [
            (None if key is None else ast.literal_eval(key), value)
            for key, value in zip(node.keys, node.values, strict=True)
        ]
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "dict":
        if node.args:
            raise ValueError("dict takes names only, a=1")
        pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
    elif isinstance(node, ast.Tuple | ast.List):
        return tuple(_value(element) for element in node.elts)
    else:
        return ast.literal_eval(node)
    keys = [key for key, _ in pairs]
    for key in keys:
        if not isinstance(key, str):
            raise ValueError(f"{key!r} is no name")
        if keys.count(key) > 1:
            raise ValueError(f"there are two of the name {key!r}")
    return {key: _value(value) for key, value in pairs}
