"""Every regular expression of the package, and texts on which a careless one would cost more than anybody waits for.

As a program it tries them all, and prints each before its turn: the last line names the one that hangs.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiodocker_images

# The parsed form of an expression has no public names, and no types.
ops: Any = importlib.import_module("re._constants")
parser: Any = importlib.import_module("re._parser")

PACKAGE = Path(aiodocker_images.__file__).parent
FUNCTIONS = {"compile", "sub", "subn", "match", "fullmatch", "search", "split", "findall", "finditer"}
TAILS = ("", "\0", "!", "a", " ", '"')

Text = str | bytes


LIMITS = {"_OCTAL": 12, "_SIZE": 32, "_SIZE_BEGUN": 32}
"""The longest texts that some expressions are given: fields of a tar's header."""


class Use(NamedTuple):
    """A place in the source that makes an expression, and what is done with it."""

    file: str
    line: int
    last_line: int
    constant: Text | None
    """The expression, where it is written there as it is."""
    name: str | None
    methods: frozenset[str]


class Expression(NamedTuple):
    """An expression, and where it was made."""

    use: Use
    pattern: re.Pattern[Any]

    def __str__(self) -> str:
        return (
            f"{Path(self.use.file).relative_to(PACKAGE)}:{self.use.line} {self.use.name} {self.pattern.pattern!r:.100}"
        )


def uses() -> list[Use]:
    """Find all places that make an expression, in the text of the package."""
    found: list[Use] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        tree = ast.parse(text)
        names: dict[ast.AST, str] = {}
        for node in ast.walk(tree):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    names |= dict.fromkeys(ast.walk(node), name)
                case ast.ImportFrom(module="re"):
                    raise AssertionError(f"{path}:{node.lineno}: write re.compile, which is looked for here")
                case _:
                    pass
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=function)) if function in FUNCTIONS:
                    first = node.args[0] if node.args else None
                    constant: object = first.value if isinstance(first, ast.Constant) else None
                    written = constant if isinstance(constant, str | bytes) else None
                    target = names.get(node)
                    methods = {function} if function != "compile" else set[str]()
                    if target is not None and function == "compile":
                        methods = set(re.findall(rf"\b{target}\.({'|'.join(FUNCTIONS - {'compile'})})\b", text))
                    # One of a table: `search` costs the most.
                    last = node.end_lineno or node.lineno
                    found.append(Use(str(path), node.lineno, last, written, target, frozenset(methods or {"search"})))
                case _:
                    pass
    return found


def expressions() -> tuple[list[Expression], list[Use]]:
    """Return the expressions of the package, and the uses of which it is not known what they make."""
    made: list[tuple[str, int, re.Pattern[Any]]] = []
    compile_one = re.compile

    def recorded(pattern: Any, flags: int | re.RegexFlag = 0) -> re.Pattern[Any]:  # noqa: ANN401 - as in re
        frame = inspect.stack(0)[1].frame
        compiled: re.Pattern[Any] = compile_one(pattern, flags)
        made.append((frame.f_code.co_filename, frame.f_lineno, compiled))
        return compiled

    known = [name for name in sys.modules if name.split(".")[0] == "aiodocker_images"]
    kept = {name: sys.modules.pop(name) for name in known}
    re.compile = recorded
    try:
        fresh = importlib.import_module("aiodocker_images")
        for module in pkgutil.walk_packages(fresh.__path__, "aiodocker_images."):
            if not module.name.endswith(("__main__", "pytest_plugin")):
                importlib.import_module(module.name)
    finally:
        re.compile = compile_one
        for name in [name for name in sys.modules if name.split(".")[0] == "aiodocker_images"]:
            del sys.modules[name]
        sys.modules.update(kept)
    found: list[Expression] = []
    unknown: list[Use] = []
    for use in uses():
        here = [each for file, line, each in made if file == use.file and use.line <= line <= use.last_line]
        if not here and use.constant is not None:
            here = [re.compile(use.constant)]
        if not here:
            unknown.append(use)
        found += [Expression(use, each) for each in here]
    return found, unknown


def attacks(pattern: re.Pattern[Any], size: int) -> Iterator[Text]:
    """Give texts that repeat what the expression repeats, and then fail it: as it begins, and from anywhere."""
    tree = parser.parse(pattern.pattern, pattern.flags)
    seen: set[str] = set()
    for before, repeated in _repeats(tree):
        for tail in TAILS:
            for text in (before + repeated * (size // len(repeated)) + tail, repeated * (size // len(repeated)) + tail):
                if text not in seen:
                    seen.add(text)
                    yield text.encode("latin-1", "replace") if isinstance(pattern.pattern, bytes) else text


def _repeats(tree: Iterable[Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Give each part that is repeated without a limit, or often, with what a text has to begin with to reach it."""
    for op, argument in tree:
        if op in (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT):
            _, most, item = argument
            if most > 16:
                for sample in _samples(item):
                    if sample:
                        yield before, sample
            yield from _repeats(item, before)
        elif op is ops.SUBPATTERN:
            yield from _repeats(argument[3], before)
        elif op is ops.ATOMIC_GROUP:
            yield from _repeats(argument, before)
        elif op is ops.BRANCH:
            for branch in argument[1]:
                yield from _repeats(branch, before)
        before += next(iter(_samples([(op, argument)])), "")


def _samples(tree: Iterable[Any]) -> list[str]:
    """Return a few texts that match: the first choices of what may stand there."""
    found = [""]
    for op, argument in tree:
        choices = _choices(op, argument)
        found = [text + choice for text in found for choice in choices][:4]
    return found


def _choices(op: Any, argument: Any) -> list[str]:  # noqa: ANN401 - the parsed form has no types
    if op is ops.LITERAL:
        return [chr(argument)]
    if op is ops.NOT_LITERAL:
        return ["a" if argument != ord("a") else "b"]
    if op is ops.ANY:
        return ["a", " "]
    if op is ops.IN:
        return [char for char in 'a0 A."\\/-_:\t=<{' if _is_in(char, argument)][:3] or [_first(argument)]
    if op is ops.BRANCH:
        return [text for branch in argument[1] for text in _samples(branch)[:1]][:3]
    if op is ops.SUBPATTERN:
        return _samples(argument[3])[:3]
    if op is ops.ATOMIC_GROUP:
        return _samples(argument)[:3]
    if op in (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT):
        least, _, item = argument
        return [text * max(least, 1) for text in _samples(item)[:2]]
    return [""]


def _is_in(char: str, members: Iterable[Any]) -> bool:
    negated, found = False, False
    for op, argument in members:
        if op is ops.NEGATE:
            negated = True
        elif op is ops.LITERAL:
            found = found or argument == ord(char)
        elif op is ops.RANGE:
            found = found or argument[0] <= ord(char) <= argument[1]
        elif op is ops.CATEGORY:
            name = str(argument)
            inside = (
                char.isdigit()
                if "DIGIT" in name
                else char.isspace()
                if "SPACE" in name
                else char.isalnum() or char == "_"
            )
            found = found or inside != ("NOT" in name)
    return found != negated


def _first(members: Iterable[Any]) -> str:
    for op, argument in members:
        if op is ops.LITERAL:
            return chr(argument)
        if op is ops.RANGE:
            return chr(argument[0])
    return "\x01"


def try_all(size: int) -> None:
    """Try every expression on every text, as it is used; fail if it is not known what one is."""
    known, unknown = expressions()
    if unknown:
        sys.exit(f"make these when the module is imported, or write them where they are used: {unknown}")
    for each in known:
        sys.stdout.write(f"{each}\n")
        sys.stdout.flush()
        longest = LIMITS.get(each.use.name or "", size)
        for text in attacks(each.pattern, longest):
            for method in each.use.methods:
                _try(each.pattern, method, text[:longest])


def _try(pattern: re.Pattern[Any], method: str, text: Text) -> None:
    if method in {"sub", "subn"}:
        pattern.sub(text[:0], text)
    elif method == "finditer":
        sum(1 for _ in pattern.finditer(text))
    else:
        getattr(pattern, method)(text)


if __name__ == "__main__":
    try_all(int(sys.argv[1]))
    sys.stdout.write("all\n")
