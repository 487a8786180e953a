"""How a template is read: its words become nodes. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from . import nodes
from .lexing import Word, parse_error, words
from .values import TemplateError

__all__ = ["MAX_NESTING", "parsed"]

MAX_NESTING: Final = 50
"""Of blocks and parentheses in each other: reading and filling in a template take some of the stack for each."""

_ESCAPES: Final = re.compile(
    r"\\(?:([abfnrtv\\'\"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.?))"
)
_PLAIN: Final = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    **{each: each for each in "\\'\""},
}
_INTEGER: Final = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F_]+|0[oO]?[0-7_]*|0[bB][01_]+|[1-9][0-9_]*)")
_REAL: Final = re.compile(r"[+-]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)(?:[eE][+-]?[0-9]+)?")
_MAX_INT: Final = 2**63
_CONSTANTS: Final = {"true": True, "false": False}
_OPERANDS: Final = frozenset(
    {"string", "raw", "character", "number", "field", "dot", "variable", "name", "("},
)

Body = tuple[nodes.Node, ...]


def parsed(text: str, name: str, functions: Collection[str]) -> dict[str, Body]:
    """Read a template and those that it defines, which are named; its own name is `name`.

    `functions` are the names of those that may be called. Raises `TemplateError`, which names the line.
    """
    parser = _Parser(text, name, functions)
    body, ending = parser.body()
    if ending is not None:
        raise parser.problem(f"unexpected {{{{{ending.text}}}}}", ending)
    return {name: body, **parser.defined} if name not in parser.defined or body else parser.defined


class _Parser:
    def __init__(self, text: str, name: str, functions: Collection[str]) -> None:
        self._text = text
        self._name = name
        self._functions = functions
        self._words = words(text, name)
        self._next: list[Word] = []
        self._variables = ["$"]
        self._depth = 0
        self._loops = 0
        self.defined: dict[str, Body] = {}

    def problem(self, problem: str, word: Word) -> TemplateError:
        return parse_error(self._name, self._text, word.position, problem)

    def _unexpected(self, word: Word, context: str) -> TemplateError:
        return self.problem(f"unexpected {word} in {context}", word)

    def _take(self, *, blanks: bool = False) -> Word:
        word = self._next.pop() if self._next else next(self._words)
        while word.kind == "space" and not blanks:
            word = self._next.pop() if self._next else next(self._words)
        return word

    def _peek(self, *, blanks: bool = False) -> Word:
        word = self._take(blanks=blanks)
        self._next.append(word)
        return word

    def _expect(self, kind: str, context: str) -> Word:
        word = self._take()
        if word.kind != kind:
            raise self._unexpected(word, context)
        return word

    def _deeper(self, word: Word) -> None:
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise self.problem(f"more than {MAX_NESTING} blocks and parentheses in each other", word)

    def body(self) -> tuple[Body, Word | None]:
        """Read up to the `end` or `else` of the block, which is returned, or to the end of the template."""
        found: list[nodes.Node] = []
        while True:
            word = self._take()
            if word.kind == "eof":
                return tuple(found), None
            if word.kind == "text":
                found.append(nodes.Text(word.position, word.text))
                continue
            first = self._peek()
            if first.kind in ("end", "else"):
                self._take()
                if first.kind == "end":
                    self._expect("close", "end")
                return tuple(found), first
            node = self._statement(first)
            if node is not None:
                found.append(node)

    def _statement(self, first: Word) -> nodes.Node | None:
        match first.kind:
            case "if" | "with" | "range":
                self._take()
                return self._branch(first)
            case "define":
                self._take()
                self._define()
                return None
            case "block" | "template":
                self._take()
                return self._invocation(first)
            case "break" | "continue":
                self._take()
                self._expect("close", f"{{{{{first.kind}}}}}")
                if not self._loops:
                    raise self.problem(f"{{{{{first.kind}}}}} outside {{{{range}}}}", first)
                return nodes.Loop(first.position, f"{{{{{first.kind}}}}}", first.kind)
            case _:
                pipeline = self._pipeline("command", "close")
                return nodes.Action(first.position, f"{{{{{pipeline.source}}}}}", pipeline)

    def _branch(self, word: Word) -> nodes.Branch:
        self._deeper(word)
        known = len(self._variables)
        pipeline = self._pipeline(word.kind, "close")
        self._loops += word.kind == "range"
        body, ending = self.body()
        self._loops -= word.kind == "range"
        otherwise: Body = ()
        if ending is not None and ending.kind == "else":
            following = self._peek()
            if following.kind == word.kind and word.kind in ("if", "with"):
                self._take()
                otherwise, ending = (self._branch(following),), None
                self._depth -= 1
                del self._variables[known:]
                return nodes.Branch(word.position, word.kind, word.kind, pipeline, body, otherwise)
            self._expect("close", "else")
            otherwise, ending = self.body()
            if ending is not None and ending.kind == "else":
                raise self.problem("expected end; found {{else}}", ending)
        if ending is None:
            raise self.problem("unexpected EOF", Word("eof", "", len(self._text)))
        self._depth -= 1
        del self._variables[known:]
        return nodes.Branch(word.position, word.kind, word.kind, pipeline, body, otherwise)

    def _define(self) -> None:
        name = self._quoted_name("define clause")
        self._expect("close", "define clause")
        self._defined(name)

    def _defined(self, name: str) -> None:
        self._deeper(Word("define", name, 0))
        variables, self._variables = self._variables, ["$"]
        loops, self._loops = self._loops, 0
        body, ending = self.body()
        if ending is None:
            raise self.problem("unexpected EOF", Word("eof", "", len(self._text)))
        if ending.kind != "end":
            raise self.problem("unexpected {{else}} in define clause", ending)
        self._variables, self._loops = variables, loops
        self._depth -= 1
        self.defined[name] = body

    def _invocation(self, word: Word) -> nodes.Invocation:
        quoted_name = self._peek()
        name = self._quoted_name(f"{word.kind} clause")
        pipeline = None
        if word.kind == "block" or self._peek().kind != "close":
            pipeline = self._pipeline(f"{word.kind} clause", "close")
        else:
            self._take()
        if word.kind == "block":
            self._defined(name)
        return nodes.Invocation(quoted_name.position, f"{{{{template {quoted_name.text}}}}}", name, pipeline)

    def _quoted_name(self, context: str) -> str:
        word = self._take()
        if word.kind not in ("string", "raw"):
            raise self._unexpected(word, context)
        return self._unquoted(word)

    def _pipeline(self, context: str, closing: str) -> nodes.Pipeline:
        start = self._peek()
        variables, assigns = self._declared(context)
        commands: list[nodes.Command] = []
        while True:
            word = self._peek()
            if word.kind == closing:
                self._take()
                break
            if word.kind not in _OPERANDS:
                raise self._unexpected(word, context)
            commands.append(self._command())
        if not commands:
            raise self.problem(f"missing value for {context}", start)
        for command in commands[1:]:
            if isinstance(command.arguments[0], nodes.Literal | nodes.Dot | nodes.Nil):
                place = commands.index(command) + 1
                raise self.problem(f"non executable command in pipeline stage {place}", start)
        source = " | ".join(command.source for command in commands)
        if variables:
            source = f"{', '.join(variables)} {'=' if assigns else ':='} {source}"
        self._variables += () if assigns else variables
        return nodes.Pipeline(start.position, source, tuple(commands), variables, assigns)

    def _declared(self, context: str) -> tuple[tuple[str, ...], bool]:
        """Read `$x :=`, `$x =` and, for a range, `$i, $x :=`, if they are there."""
        first = self._peek()
        if first.kind != "variable":
            return (), False
        taken = [self._take()]
        names = [first.text]
        word = self._take(blanks=True)
        taken.append(word)
        if word.kind == "space":
            word = self._take(blanks=True)
            taken.append(word)
        if word.kind == "," and context == "range":
            second = self._take()
            if second.kind != "variable":
                raise self._unexpected(second, context)
            names.append(second.text)
            word = self._take()
            if word.kind not in ("declare", "="):
                raise self._unexpected(word, context)
        if word.kind in ("declare", "="):
            if word.kind == "=":
                for name in names:
                    self._known(name, first)
            return tuple(names), word.kind == "="
        if word.kind == ",":
            raise self.problem(f"too many declarations in {context}", word)
        self._next += reversed(taken)
        return (), False

    def _command(self) -> nodes.Command:
        arguments: list[nodes.Argument] = []
        start = self._peek()
        while True:
            word = self._peek()
            if word.kind in _OPERANDS:
                arguments.append(self._operand())
            elif not arguments:
                raise self.problem("empty command", word)
            following = self._take(blanks=True)
            if following.kind == "space":
                continue
            if following.kind == "|":
                break
            if following.kind in ("close", ")"):
                self._next.append(following)
                break
            raise self._unexpected(following, "operand")
        source = " ".join(f"({each.source})" if isinstance(each, nodes.Pipeline) else each.source for each in arguments)
        return nodes.Command(start.position, source, tuple(arguments))

    def _operand(self) -> nodes.Argument:
        start = self._term()
        names: list[str] = []
        place = self._peek(blanks=True).position  # which Go names in errors
        while self._peek(blanks=True).kind == "field":
            names.append(self._take().text[1:])
        if not names:
            return start
        chain = "".join(f".{name}" for name in names)
        match start:
            case nodes.Field():
                return nodes.Field(place, start.source + chain, (*start.names, *names))
            case nodes.Variable():
                return nodes.Variable(place, start.source + chain, start.name, (*start.names, *names))
            case nodes.Literal() | nodes.Nil() | nodes.Dot():
                raise self.problem(f"unexpected . after term {start.source!r}", Word("", "", start.position))
            case _:
                source = f"({start.source})" if isinstance(start, nodes.Pipeline) else start.source
                return nodes.Chain(place, source + chain, start, tuple(names))

    def _term(self) -> nodes.Argument:
        word = self._take()
        place = word.position
        match word.kind:
            case "name" if word.text in _CONSTANTS:
                return nodes.Literal(place, word.text, _CONSTANTS[word.text])
            case "name" if word.text == "nil":
                return nodes.Nil(place, "nil")
            case "name":
                if word.text not in self._functions:
                    raise self.problem(f'function "{word.text}" not defined', word)
                return nodes.Function(place, word.text, word.text)
            case "dot":
                return nodes.Dot(place, ".")
            case "variable":
                self._known(word.text, word)
                return nodes.Variable(place, word.text, word.text, ())
            case "field":
                return nodes.Field(place, word.text, (word.text[1:],))
            case "string" | "raw":
                return nodes.Literal(place, word.text, self._unquoted(word))
            case "character":
                return nodes.Literal(place, word.text, self._character(word))
            case "number":
                return nodes.Literal(place, word.text, self._number(word))
            case _:
                self._deeper(word)
                pipeline = self._pipeline("parenthesized pipeline", ")")
                self._depth -= 1
                return pipeline

    def _known(self, name: str, word: Word) -> None:
        if name not in self._variables:
            raise self.problem(f'undefined variable "{name}"', word)

    def _number(self, word: Word) -> int | float:
        text = word.text
        if _INTEGER.fullmatch(text):
            digits = text.replace("_", "")
            octal = re.fullmatch(r"([+-]?)0([0-7]+)", digits)
            value = int(f"{octal[1]}0o{octal[2]}" if octal else digits, 0)
            if -_MAX_INT <= value < _MAX_INT:
                return value
            raise self.problem(f"integer overflow: {word}", word)
        if _REAL.fullmatch(text):
            real = float(text.replace("_", ""))
            if abs(real) != float("inf"):
                return real
            raise self.problem(f"illegal number syntax: {word}", word)
        raise self.problem(f'bad number syntax: "{text[:40]}"', word)

    def _character(self, word: Word) -> int:
        text = self._unescaped(word)
        if len(text) != 1:
            raise self.problem(f"malformed character constant: {word.text[:40]}", word)
        return ord(text)

    def _unquoted(self, word: Word) -> str:
        if word.kind == "raw":
            return word.text[1:-1].replace("\r", "")
        return self._unescaped(word)

    def _unescaped(self, word: Word) -> str:
        def plain(match: re.Match[str]) -> str:
            simple, octal, byte, short, long, other = match.groups()
            if simple is not None and simple != ("'" if word.kind == "string" else '"'):
                return _PLAIN[simple]
            digits = byte or short or long
            code = int(octal, 8) if octal else int(digits, 16) if digits else -1
            if other is not None or not 0 <= code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
                raise self.problem("invalid syntax", word)
            return chr(code)

        return _ESCAPES.sub(plain, word.text[1:-1])
