"""A template, and how values are put into it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from . import nodes
from .functions import FUNCTIONS, Function
from .parsing import parsed
from .printing import printed, quoted
from .values import MAX_TEXT, CallError, List, Map, NilPointer, Struct, TemplateError, Value, truth, type_name

__all__ = ["MAX_INVOCATIONS", "MAX_OUTPUT", "MAX_STEPS", "MAX_TEMPLATE", "Template", "TemplateError"]

MAX_TEMPLATE: Final = 1 << 20
"""Characters of a template; the longest that people pass around have some thousands."""
MAX_STEPS: Final = 1_000_000
"""Parts of a template that are evaluated for one row or document: a loop in a loop over long lists ends somewhere."""
MAX_OUTPUT: Final = 64 << 20
"""Characters that are made for one row or document, those that go on into functions included."""
MAX_INVOCATIONS: Final = 10
"""Of templates by each other, themselves included."""

_SHOWN: Final = 100  # characters of the part that an error quotes
_SHORT_CIRCUIT: Final = frozenset({"and", "or"})


class _Missing:
    """That no value comes through the pipe, which nil would be."""


_MISSING: Final = _Missing()


class _Left(Exception):  # noqa: N818 - no error: `break` or `continue`
    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass
class _Variable:
    name: str
    value: Value


class Template:
    """A template in Go's language, read once; `execute` puts values into it.

    `name` is how errors call it. Raises `TemplateError`, which names the line, for what is not a template.
    """

    def __init__(self, text: str, *, name: str = "") -> None:
        if len(text) > MAX_TEMPLATE:
            raise TemplateError(f"the template is longer than {MAX_TEMPLATE >> 20} MiB")
        self.text = text
        self.name = name
        self._bodies = parsed(text, name, {*FUNCTIONS, *_SHORT_CIRCUIT})

    def execute(self, data: Value, *, strict: bool = False, functions: Mapping[str, Function] = FUNCTIONS) -> str:
        """Return the text with values in it. `strict`: a key that a map does not have is an error.

        Raises `TemplateError`, which names line and column, and has what was written before.
        """
        run = _Run(self, self._bodies, functions, strict=strict)
        try:
            run.body(self.name, self._bodies.get(self.name, ()), data)
        except RecursionError:
            error = TemplateError(f"template: {self.name}: the values are nested too deeply")
            error.written = "".join(run.written)
            raise error from None
        except TemplateError as error:
            error.written = "".join(run.written)
            raise
        return "".join(run.written)


class _Run:
    """One execution of a template."""

    def __init__(
        self,
        template: Template,
        bodies: Mapping[str, tuple[nodes.Node, ...]],
        functions: Mapping[str, Function],
        *,
        strict: bool,
    ) -> None:
        self.written: list[str] = []
        self._template = template
        self._bodies = bodies
        self._functions = functions
        self._strict = strict
        self._name = template.name
        self._invocations = 0
        self._variables: list[_Variable] = []
        self._steps = MAX_STEPS
        self._characters = MAX_OUTPUT

    def _error(self, node: nodes.Node | nodes.Argument | nodes.Command, problem: str) -> TemplateError:
        before = self._template.text[: node.position]
        line = before.count("\n") + 1
        column = len(before[before.rfind("\n") + 1 :].encode("utf-8", "replace"))
        shown = node.source if len(node.source) <= _SHOWN else f"{node.source[:_SHOWN]}..."
        where = f"template: {self._template.name}:{line}:{column}"
        return TemplateError(f'{where}: executing "{self._name}" at <{shown}>: {problem}')

    def _step(self, node: nodes.Node | nodes.Argument | nodes.Command) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise self._error(node, f"more than {MAX_STEPS} steps")

    def _charge(self, node: nodes.Node | nodes.Argument | nodes.Command, value: Value) -> None:
        """Count what it costs to look through a value."""
        if isinstance(value, str):
            self._made(node, value)
        elif isinstance(value, List | Map):
            self._steps -= len(value)
            self._step(node)

    def _made(self, node: nodes.Node | nodes.Argument | nodes.Command, text: str) -> str:
        self._characters -= len(text)
        if len(text) > MAX_TEXT or self._characters < 0:
            raise self._error(
                node, f"a text of more than {MAX_TEXT >> 20} MiB, or more than {MAX_OUTPUT >> 20} MiB in all"
            )
        return text

    def body(self, name: str, body: tuple[nodes.Node, ...], data: Value) -> None:
        """Execute a template on `data`."""
        before, self._variables, outer, self._name = self._variables, [_Variable("$", data)], self._name, name
        self._each(body, data)
        self._variables, self._name = before, outer

    def _each(self, body: tuple[nodes.Node, ...], dot: Value) -> None:
        for node in body:
            self._step(node)
            match node:
                case nodes.Text():
                    self.written.append(self._made(node, node.source))
                case nodes.Action():
                    value = self._pipeline(dot, node.pipeline)
                    if not node.pipeline.variables:
                        self.written.append(self._made(node.pipeline, self._text(node, value)))
                case nodes.Branch():
                    self._branch(dot, node)
                case nodes.Loop():
                    raise _Left(node.kind)
                case nodes.Invocation():
                    self._invoke(dot, node)

    def _text(self, node: nodes.Action, value: Value) -> str:
        try:
            return "<no value>" if value is None else printed(value)
        except CallError as error:
            raise self._error(node.pipeline, str(error)) from error

    def _invoke(self, dot: Value, node: nodes.Invocation) -> None:
        body = self._bodies.get(node.name)
        if body is None:
            raise self._error(node, f"template {quoted(node.name)} not defined")
        if self._invocations >= MAX_INVOCATIONS:
            raise self._error(node, f"more than {MAX_INVOCATIONS} templates in each other")
        self._invocations += 1
        self.body(node.name, body, None if node.pipeline is None else self._pipeline(dot, node.pipeline))
        self._invocations -= 1

    def _branch(self, dot: Value, node: nodes.Branch) -> None:
        mark = len(self._variables)
        if node.kind == "range":
            self._range(dot, node)
        else:
            value = self._pipeline(dot, node.pipeline)
            inner = value if node.kind == "with" and truth(value) else dot
            self._each(node.body if truth(value) else node.otherwise, inner)
        del self._variables[mark:]

    def _range(self, dot: Value, node: nodes.Branch) -> None:
        outer = len(self._variables)
        value = self._pipeline(dot, node.pipeline, to_range=True)
        names = node.pipeline.variables
        mark = len(self._variables)
        ran = False
        try:
            for key, each in self._items(node, value):
                self._step(node)
                ran = True
                self._set(names, key, each, assigns=node.pipeline.assigns)
                try:
                    self._each(node.body, each)
                except _Left as left:
                    if left.kind == "break":
                        return
                del self._variables[mark:]
        finally:
            del self._variables[outer:]
        if not ran:
            self._each(node.otherwise, dot)

    def _items(self, node: nodes.Branch, value: Value) -> Iterator[tuple[Value, Value]]:
        self._charge(node, value)
        last = node.pipeline.commands[-1].arguments[0]
        match value:
            case List():
                return enumerate(value)
            case Map():
                return ((key, value[key]) for key in sorted(value))
            case None:
                return iter(())
            case int() if not isinstance(value, bool):
                if len(node.pipeline.variables) > 1:
                    raise self._error(last, f"can't use {int(value)} to iterate over more than one variable")
                return ((None, number) for number in range(value))
            case _:
                raise self._error(last, f"range can't iterate over {printed(value)}")

    def _set(self, names: tuple[str, ...], key: Value, value: Value, *, assigns: bool) -> None:
        given = {1: (value,), 2: (key, value)}.get(len(names), ())
        for name, each in zip(names, given, strict=True):
            if assigns:
                self._variable(name).value = each
            else:
                self._variables.append(_Variable(name, each))

    def _variable(self, name: str) -> _Variable:
        return next(variable for variable in reversed(self._variables) if variable.name == name)

    def _pipeline(self, dot: Value, pipeline: nodes.Pipeline, *, to_range: bool = False) -> Value:
        value: Value | _Missing = _MISSING
        for command in pipeline.commands:
            self._step(command)
            value = self._command(dot, command, value)
        if not to_range:
            names = pipeline.variables
            self._set(names, None, value, assigns=pipeline.assigns)
        return value

    def _command(self, dot: Value, command: nodes.Command, final: Value | _Missing) -> Value:
        first, more = command.arguments[0], command.arguments[1:]
        match first:
            case nodes.Function():
                return self._call(dot, command, first, more, final)
            case nodes.Field() | nodes.Chain() | nodes.Variable() if not (
                isinstance(first, nodes.Variable) and not first.names
            ):
                if more or final is not _MISSING:
                    raise self._error(first, f"{first.names[-1]} is not a method but has arguments")
                return self._argument(dot, first)
            case _:
                if more or final is not _MISSING:
                    raise self._error(first, f"can't give argument to non-function {first.source}")
                if isinstance(first, nodes.Nil):
                    raise self._error(first, "nil is not a command")
                return self._argument(dot, first)

    def _argument(self, dot: Value, node: nodes.Argument) -> Value:
        self._step(node)
        match node:
            case nodes.Dot():
                return dot
            case nodes.Nil():
                return None
            case nodes.Literal():
                return node.value
            case nodes.Field():
                return self._fields(node, dot, node.names)
            case nodes.Variable():
                return self._fields(node, self._variable(node.name).value, node.names)
            case nodes.Chain():
                if isinstance(node.start, nodes.Nil):
                    raise self._error(node, "indirection through explicit nil in " + node.source)
                return self._fields(node, self._argument(dot, node.start), node.names)
            case nodes.Pipeline():
                return self._pipeline(dot, node)
            case nodes.Function():
                return self._call(dot, nodes.Command(node.position, node.source, (node,)), node, (), _MISSING)

    def _fields(self, node: nodes.Argument, value: Value, names: tuple[str, ...]) -> Value:
        for name in names:
            match value:
                case None:
                    if self._strict:
                        raise self._error(node, f"nil data; no entry for key {quoted(name)}")
                    return None
                case Struct() if name in value.members:
                    value = value.members[name]
                case Struct():
                    raise self._error(node, f"can't evaluate field {name} in type {value.type_name}")
                case NilPointer():
                    raise self._error(node, f"nil pointer evaluating {value.type_name}.{name}")
                case Map():
                    if name not in value and self._strict:
                        raise self._error(node, f"map has no entry for key {quoted(name)}")
                    value = value.get(name)
                case _:
                    raise self._error(node, f"can't evaluate field {name} in type {type_name(value)}")
        return value

    def _call(
        self,
        dot: Value,
        command: nodes.Command,
        node: nodes.Function,
        more: tuple[nodes.Argument, ...],
        final: Value | _Missing,
    ) -> Value:
        self._step(command)
        if node.name in _SHORT_CIRCUIT:
            return self._short_circuit(dot, node, more, final)
        function = self._functions[node.name]
        count = len(more) + (final is not _MISSING)
        fixed = len(function.parameters) - function.variadic
        if count < fixed or (count > fixed and not function.variadic):
            least = "at least " if function.variadic else ""
            raise self._error(node, f"wrong number of args for {node.name}: want {least}{fixed} got {count}")
        values = [
            self._checked(each, self._argument(dot, each), self._parameter(function, number))
            for number, each in enumerate(more)
        ]
        if final is not _MISSING:
            values.append(self._checked(command, final, self._parameter(function, len(more))))
        for value in values:
            self._charge(command, value)
        try:
            result = function.call(*values)
        except CallError as error:
            raise self._error(command, f"error calling {node.name}: {error}") from error
        if isinstance(result, str):
            self._made(command, result)
        else:
            self._charge(command, result)
        return result

    @staticmethod
    def _parameter(function: Function, number: int) -> str:
        return function.parameters[min(number, len(function.parameters) - 1)]

    def _checked(self, node: nodes.Argument | nodes.Command, value: Value, parameter: str) -> Value:
        if parameter == "any":
            return value
        wanted = str if parameter == "string" else int
        if isinstance(value, wanted) and not isinstance(value, bool):
            return value
        if value is None:
            raise self._error(node, f"invalid value; expected {parameter}")
        if isinstance(node, nodes.Literal):
            raise self._error(node, f"expected {'string' if parameter == 'string' else 'integer'}; found {node.source}")
        raise self._error(node, f"wrong type for value; expected {parameter}; got {type_name(value)}")

    def _short_circuit(
        self,
        dot: Value,
        node: nodes.Function,
        more: tuple[nodes.Argument, ...],
        final: Value | _Missing,
    ) -> Value:
        if not more and final is _MISSING:
            raise self._error(node, f"wrong number of args for {node.name}: want at least 1 got 0")
        value: Value = None
        for each in more:
            value = self._argument(dot, each)
            if truth(value) == (node.name == "or"):
                return value
        return value if final is _MISSING else final
