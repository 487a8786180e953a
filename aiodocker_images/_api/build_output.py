"""What the steps of a build say: BuildKit's progress as text, and the end of a failed step's output. Pure."""

from __future__ import annotations

import codecs
import contextlib
import re
from collections import deque
from collections.abc import Generator
from typing import Final

import msgspec

from aiodocker_images.buildkit import BuildStep, BuildTrace, read_trace
from aiodocker_images.errors import APIError
from aiodocker_images.progress import ProgressFrame

__all__ = ["MAX_STEP_LINES", "MAX_STEP_OUTPUT", "StepOutput"]

MAX_STEP_LINES: Final = 20
"""Lines of a failed step's output in the error."""

MAX_STEP_OUTPUT: Final = 16 << 10
"""Characters of a step's output that are remembered for that."""

MAX_STEPS: Final = 4096
"""Steps of BuildKit's that are remembered; the oldest is forgotten first."""

MAX_STEP_NAME: Final = 4096
"""Characters of a step's name and error that are remembered."""

# Docker's "Step 2/3 : RUN …", Podman's "STEP 2/3: RUN …", there with the stage in front if there are several.
_STEP: Final = re.compile(r"(?:\[\d+/\d+\] )?step \d+/\d+ ?: ", re.IGNORECASE)

# The classic builder paints standard error red.
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


class StepOutput:
    """Reads the frames of a build; `explain()` adds to an error what the step that failed had said."""

    def __init__(self) -> None:
        self._output = _Tail()
        self._steps: dict[str, _Step] = {}
        self._failed: list[_Step] = []
        self._begun = 0

    def read(self, frame: ProgressFrame) -> ProgressFrame:
        """Take in a frame, and return it as the user shall see it: BuildKit's progress typed, and as text."""
        trace = read_trace(frame)
        if trace is not None:
            return msgspec.structs.replace(frame, aux=trace, stream=self._text(trace) or None)
        text = frame.stream or ""
        if _STEP.match(text):
            self._output = _Tail()
        self._output.add(text)
        return frame

    @contextlib.contextmanager
    def explaining(self) -> Generator[None, None, None]:
        """Explain the error that is raised in this context."""
        try:
            yield
        except APIError as error:
            self.explain(error)
            raise

    def explain(self, error: APIError) -> None:
        """Add the end of the failed step's output to the error's message."""
        output = self._output
        if self._failed:
            # Other steps are cancelled when one fails, and have not failed themselves.
            cause = next((step for step in self._failed if "context canceled" not in step.error), self._failed[0])
            output = _Tail()
            output.add(f"{cause.name}\n")
            output.add(cause.output.text())
        lines = _COLOUR.sub("", output.text()).rstrip().splitlines()
        if lines:
            error.message = "\n".join([error.message.rstrip(), *lines[-MAX_STEP_LINES:]])
            error.args = (error.message,)

    def _text(self, trace: BuildTrace) -> str:
        """Return a trace in whole lines, each with its step's number: steps run side by side."""
        text = "".join(self._of_step(step) for step in trace.steps)
        for log in trace.logs:
            step = self._step(log.step)
            piece = step.decoder.decode(log.data)
            step.output.add(piece)
            text += step.lines(piece)
        # What a step says last need not end its line, and may come in the frame that says that it is done.
        text += "".join(self._step(step.digest).end() for step in trace.steps if step.completed or step.error)
        return text + "".join(f"WARNING: {warning.short}\n" for warning in trace.warnings)

    def _of_step(self, report: BuildStep) -> str:
        step = self._step(report.digest)
        text = ""
        if not step.number and (report.started is not None or report.error):
            self._begun += 1
            step.number, step.name = f"#{self._begun}", report.name[:MAX_STEP_NAME]
            text = f"{step.number} {step.name}\n"
        if report.cached and not step.cached:
            step.cached = True
            text += f"{step.number} CACHED\n"
        if report.error and not step.error:
            step.error = report.error[:MAX_STEP_NAME]
            if len(self._failed) < MAX_STEP_LINES:
                self._failed.append(step)
            text += f"{step.number} ERROR: {report.error}\n"
        return text

    def _step(self, digest: str) -> _Step:
        if digest not in self._steps and len(self._steps) >= MAX_STEPS:
            del self._steps[next(iter(self._steps))]
        return self._steps.setdefault(digest, _Step())


class _Tail:
    """The end of a text that comes in pieces: at least `MAX_STEP_OUTPUT` characters, if there are so many."""

    def __init__(self) -> None:
        self._pieces: deque[str] = deque()
        self._size = 0

    def add(self, piece: str) -> None:
        if not piece:
            return
        self._pieces.append(piece[-MAX_STEP_OUTPUT:])
        self._size += len(self._pieces[-1])
        while self._size - len(self._pieces[0]) >= MAX_STEP_OUTPUT:
            self._size -= len(self._pieces.popleft())

    def text(self) -> str:
        return "".join(self._pieces)[-MAX_STEP_OUTPUT:]


class _Step:
    """What is remembered of one of BuildKit's steps."""

    def __init__(self) -> None:
        self.number = ""  # "" until it has begun
        self.name = ""
        self.cached = False
        self.error = ""
        self.output = _Tail()
        self._line = ""  # what has no end yet
        self._ended = False
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def lines(self, piece: str) -> str:
        """Take in a piece of the step's output, and return the lines that are whole with it."""
        *whole, self._line = (self._line + piece).split("\n")
        if len(self._line) > MAX_STEP_NAME or self._ended:
            whole += [self._line] if self._line else []
            self._line = ""
        return "".join(f"{self.number} {line}".strip() + "\n" for line in whole)

    def end(self) -> str:
        """Return the line that the step has begun and not ended."""
        self._ended = True
        return self.lines("")
