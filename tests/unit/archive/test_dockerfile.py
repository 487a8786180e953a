"""A Dockerfile is told from an archive, and from its text whether it copies a file of the context."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile

import pytest

from aiodocker_images._archive.dockerfile import archive_around, is_archive, may_copy


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return buffer.getvalue()


ARCHIVES = [
    tar(),
    gzip.compress(tar(), mtime=0),
    bz2.compress(tar()),
    lzma.compress(tar()),
    bytes(10240),
    b"\x28\xb5\x2f\xfd",
]
OTHERS = [b"", b"FROM scratch\n", b"FROM scratch\n" * 100, b"\xef\xbb\xbfFROM scratch", bytes(100), b"PK\x03\x04"]


@pytest.mark.parametrize("content", ARCHIVES, ids=lambda each: ascii(each[:6]))
def test_an_archive_is_known_by_how_it_begins(content: bytes) -> None:
    assert is_archive(content)


@pytest.mark.parametrize("content", OTHERS, ids=lambda each: ascii(each[:6]))
def test_anything_else_is_a_dockerfile(content: bytes) -> None:
    assert not is_archive(content)


@pytest.mark.parametrize("content", OTHERS, ids=lambda each: ascii(each[:6]))
def test_a_dockerfile_alone_gets_an_archive_around_it(content: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive_around(content))) as archive:
        assert archive.getnames() == ["Dockerfile"]
        file = archive.extractfile("Dockerfile")
        assert file is not None
        assert file.read() == content


COPIES: list[tuple[str, bool]] = [
    ("COPY \\\n\n  \n build/Dockerfile /x", True),
    ("COPY --from=other \\\n\n build/Dockerfile /x", False),
    ("", False),
    ("FROM scratch", False),
    ("COPY . /", True),
    ("copy ./ /src", True),
    ("COPY / /src", True),
    ("COPY a b /x/", False),
    ("COPY a . /x/", True),
    ("COPY . ", False),
    ("ADD build /x", True),
    ("ADD build/ /x", True),
    ("ADD b*d /x", True),
    ("ADD build/Docker?ile /x", True),
    ("COPY build/src /x", False),
    ("COPY --chown=1:1 --link . /x", True),
    ("COPY --from=0 . /x", False),
    ("COPY --from=base --chown=1 / /x", False),
    ('COPY ["a b", ".", "/x"]', True),
    ('COPY ["a b", "/x"]', False),
    ("COPY [unclosed", True),
    ("COPY $what /x", True),
    ("COPY a /$where", False),
    ("ADD https://example.com/. /x", False),
    ("COPY a \\\n . \\\n /x", True),
    ("COPY a \\\n # a remark\n . /x", True),
    ("# escape=`\nCOPY a `\n . /x", True),
    ("# escape=`\nCOPY a \\\nCOPY b /x", False),
    ("ONBUILD COPY . /x", True),
    ("RUN cp . /x", False),
    ("RUN --mount=type=cache,target=/x true", False),
    ("RUN --mount=type=bind,target=/x true", True),
    ("RUN --mount=type=bind,from=base,target=/x true", False),
    ("RUN --mount=type=bind,source=src,target=/x true", False),
    ("\ufeffCOPY . /x", True),
    ("COPY [a /x", True),
]


@pytest.mark.parametrize(("text", "expected"), COPIES, ids=lambda each: ascii(each)[:30])
def test_a_dockerfile_tells_whether_it_copies_a_file(text: str, expected: bool) -> None:
    assert may_copy(text.encode(), "build/Dockerfile") is expected


def test_empty_lines_cost_no_more_than_they_are() -> None:
    """Gathered as parts of an instruction, and joined at each, they would keep a thread busy for hours."""
    assert may_copy(b"\n" * (2 << 20) + b"COPY build /x", "build/Dockerfile")
