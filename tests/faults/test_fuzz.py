"""Real answers with bytes of them changed, left out, repeated and moved: what reads them raises our errors or none."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import engines
from aiodocker_images import ConfigError, DockerError, Endpoint, Event, ProgressFrame, Reference
from aiodocker_images._api.json_stream import FrameDecoder
from aiodocker_images._api.outcomes import BuildOutcome, ImportOutcome, LoadOutcome, Outcome, PullOutcome, PushOutcome
from aiodocker_images._archive.tar_check import TarCheck
from aiodocker_images._http.refusals import read_error
from aiodocker_images._struct import UNDECODABLE
from aiodocker_images.progress import ProgressTracker
from tests.support.answer_sweep import OPERATIONS
from tests.support.docker_contexts import write_context
from tests.support.replay import recording
from tests.unit.test_models import SAMPLES

_CHUNK: Final = re.compile(rb"([0-9a-f]+)\r\n")
_IMAGE: Final = Reference.parse("127.0.0.1:5000/alpine:1")

OUTCOMES: Final[dict[str, Callable[[], Outcome[object]]]] = {
    "pull": lambda: PullOutcome(_IMAGE),
    "push": lambda: PushOutcome(_IMAGE),
    "load": LoadOutcome,
    "import": ImportOutcome,
    "build": BuildOutcome,
}


def body_of(wire: bytes) -> bytes:
    """Return what an answer brings, in HTTP chunks or not."""
    head, _, rest = wire.partition(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" not in head:
        return rest
    body = b""
    while (found := _CHUNK.match(rest)) and (size := int(found[1], 16)):
        body += rest[found.end() : found.end() + size]
        rest = rest[found.end() + size + 2 :]
    return body


BODIES: Final = {
    f"{operation} of {engine}": body_of(recording(engine, operation))
    for operation in OPERATIONS
    for engine in engines.ENGINES
}


def test_every_recording_brings_something() -> None:
    assert all(BODIES.values())


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Change some bytes: flip, drop, repeat, insert, or put a token of JSON there."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(changed) - 1, 0)))
        length = draw(st.integers(1, 40))
        match draw(st.sampled_from(["flip", "drop", "repeat", "insert", "token"])):
            case "flip":
                changed[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "drop":
                del changed[at : at + length]
            case "repeat":
                changed[at:at] = changed[at : at + length]
            case "insert":
                changed[at:at] = draw(st.binary(max_size=20))
            case _:
                token = draw(st.sampled_from([b"null", b"{}", b"[]", b"-1", b"1e999", b'""', b"9" * 30, b"\\ud800"]))
                changed[at : at + length] = token
    return bytes(changed)


@pytest.mark.parametrize("name", BODIES)
@given(data=st.data())
def test_a_real_answer_that_was_changed_raises_our_errors_or_none(name: str, data: st.DataObject) -> None:
    operation = name.split(maxsplit=1)[0]
    body = data.draw(mutated(BODIES[name]))
    cut = data.draw(st.integers(0, len(body)))
    try:
        if operation == "save":
            check = TarCheck()
            check.feed(body[:cut])
            check.feed(body[cut:])
            check.finish()
        elif operation == "events":
            read_all(FrameDecoder(Event), body, cut, lambda _: None)
        else:
            outcome, tracker = OUTCOMES[operation](), ProgressTracker()

            def take(frame: ProgressFrame) -> None:
                tracker.update(frame)
                if frame.failure is None:
                    outcome.update(frame)

            read_all(FrameDecoder(ProgressFrame), body, cut, take)
            outcome.result()
    except DockerError:
        pass


def read_all(decoder: FrameDecoder[Any], body: bytes, cut: int, take: Callable[[Any], None]) -> None:
    for piece in (body[:cut], body[cut:]):
        for frame in decoder.feed(piece):
            take(frame)
    decoder.finish()


@given(data=st.data(), status=st.integers(300, 599))
def test_an_error_answer_that_was_changed_has_a_status_and_a_message(data: st.DataObject, status: int) -> None:
    body = data.draw(mutated(b'{"cause":"no such image","message":"x: image not known","response":404}'))
    found, message = read_error(status, "reason", body)
    assert 300 <= found <= 599
    assert message


@pytest.mark.parametrize("name", SAMPLES)
@given(data=st.data())
def test_a_document_that_was_changed_is_read_or_refused_by_the_decoder(name: str, data: st.DataObject) -> None:
    """With the errors that `Transport.decode` makes ours of, and no other."""
    model, document = SAMPLES[name]
    body = data.draw(mutated(msgspec.json.encode(document)))
    with contextlib.suppress(*UNDECODABLE):
        msgspec.json.decode(body, type=model, strict=data.draw(st.booleans()))


@given(text=st.text() | st.binary().map(lambda data: data.decode("latin-1")), data=st.data())
def test_what_is_no_reference_is_refused_with_our_error_alone(text: str, data: st.DataObject) -> None:
    changed = data.draw(mutated(b"127.0.0.1:5000/library/alpine:3.20@sha256:" + b"ab" * 32)).decode("latin-1")
    for name in (text, changed):
        with contextlib.suppress(DockerError):
            assert Reference.parse(str(Reference.parse(name))) == Reference.parse(name)


CONFIG: Final = json.dumps(
    {"currentContext": "prod", "credsStore": "pass", "auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}}}
).encode()
HOSTS: Final = (
    "unix:///run/docker.sock",
    "tcp://[::1]:2376",
    "ssh://me@there:22/run/docker.sock",
    "https://there:2376/prefix",
    "",
)
NAMES: Final = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
ANYTHING: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NAMES | st.sampled_from(HOSTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(data=st.data())
def test_any_docker_cli_files_give_an_endpoint_or_one_of_our_errors(data: st.DataObject) -> None:
    """Endpoints of any type, documents with bytes changed, certificates that are none, variables of any text."""
    with tempfile.TemporaryDirectory(prefix="adi-") as name:
        directory = Path(name)
        endpoint = {
            "Host": data.draw(st.sampled_from(HOSTS) | mutated(b"tcp://there:2376").map(lambda b: b.decode("latin-1"))),
            "SkipTLSVerify": data.draw(st.booleans() | ANYTHING),
        } | data.draw(st.dictionaries(st.sampled_from(["Host", "SkipTLSVerify", "More"]), ANYTHING, max_size=2))
        files = data.draw(st.lists(st.sampled_from(["ca.pem", "cert.pem", "key.pem"]), unique=True))
        meta = write_context(directory, "prod", files=tuple(files), **endpoint)
        for path, content in ((meta, meta.read_bytes()), (directory / "config.json", CONFIG)):
            path.write_bytes(data.draw(st.just(content) | mutated(content)))
        more = st.fixed_dictionaries(
            {},
            optional={
                "DOCKER_CONTEXT": st.just("prod") | NAMES,
                "DOCKER_HOST": st.sampled_from(HOSTS) | NAMES,
                "DOCKER_TLS_VERIFY": st.sampled_from(["", "1"]),
                "DOCKER_TLS": st.sampled_from(["", "1"]),
                "DOCKER_CERT_PATH": st.just(name) | NAMES,
            },
        )
        try:
            found = Endpoint.resolve(environ={"DOCKER_CONFIG": name, "HOME": name} | data.draw(more))
        except ConfigError:
            return
        assert isinstance(found, Endpoint)
