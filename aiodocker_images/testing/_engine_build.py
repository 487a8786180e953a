"""Import and build of a fake Engine: FROM, COPY, LABEL, ENV and CMD with the classic builder, and nothing else."""

from __future__ import annotations

import gzip
import json
import posixpath
import re
import secrets
import shlex
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

from aiodocker_images.reference import Reference

from ._engine_answers import RefusalError, frame, not_faked
from ._engine_archives import layer_of, no_tar_words, read_tar
from ._engine_events import EventLog
from ._engine_images import rfc3339
from ._engine_store import EngineStore, Image, new_variant
from ._engine_transfers import Transfers
from .content import Blob, digest_of, tar

PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FAKED: Final = ("FROM", "COPY", "LABEL", "ENV", "CMD")
KNOWN: Final = frozenset(
    [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ]
)
_CHANGES: Final = frozenset({"CMD", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "USER", "VOLUME", "WORKDIR"})


class Maker:
    """Makes images: of a root file system, or of a Dockerfile."""

    def __init__(self, store: EngineStore, events: EventLog, transfers: Transfers) -> None:
        self._store = store
        self._as = store.behaviour
        self._events = events
        self._transfers = transfers

    def _layer(self, data: bytes) -> Blob:
        packed = gzip.compress(data, 1, mtime=0) if self._as.store == "containerd" else None
        return layer_of(data, packed=packed)

    def _add(self, document: dict[str, Any], layers: tuple[Blob, ...], parent: str = "") -> Image:
        if self._as.store == "graph":
            document = {**document, "docker_version": self._as.version}
        variant = new_variant(document, layers)
        return self._store.add(variant.manifest, [variant], parent=parent, made_here=True)[0]

    def bring_in(self, data: bytes, name: str, message: str, changes: Sequence[str]) -> Image:
        """Make an image of a root file system, compressed or not."""
        try:
            files = read_tar(data)
        except ValueError:
            raise RefusalError(500, no_tar_words(self._as)) from None
        plain = data if data[:2] != b"\x1f\x8b" else gzip.decompress(data)
        if not plain.startswith(b"\0") and not files and data[:3] in {b"BZh", b"\xfd7z"}:
            raise not_faked("an import of a tar compressed with anything but gzip")
        run: dict[str, Any] = {}
        for change in changes:
            word, _, rest = change.strip().partition(" ")
            if word.upper() not in _CHANGES:
                raise RefusalError(400, f"{word.lower()} is not a valid change command")
            apply(run, word.upper(), rest.strip())
        created = rfc3339(time.time_ns())
        layer = self._layer(plain)
        made = f"/bin/sh -c #(nop) ADD file:{layer.diff_id[7:]} in /" if self._as.podman else ""
        document = {
            "architecture": "amd64",
            "comment": message,
            "config": run,
            "created": created,
            "history": [{"created": created, "comment": message} | ({"created_by": made} if made else {})],
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        }
        image = self._add(document, (layer,))
        if name:
            self._store.name(image, name, by_hand=True)
            self._events.about("tag", image, self._store.shown(name))
        if not self._as.podman:
            self._events.about("import", image)
        return image

    # Build

    async def build(
        self, context: bytes, query: Mapping[str, str], names: list[str], auth: str
    ) -> AsyncGenerator[bytes, None]:
        """Build the Dockerfile of a context."""
        try:
            files = read_tar(context)
        except ValueError:
            raise RefusalError(500, no_tar_words(self._as)) from None
        path = posixpath.normpath(query.get("dockerfile") or "Dockerfile")
        if path not in files:
            raise RefusalError(500, f"Cannot locate specified Dockerfile: {path}")
        steps = instructions(files[path].decode())
        for number, (word, rest, _) in enumerate(steps, 1):
            if word not in KNOWN:
                on = "on " if self._as.release >= 25 else ""
                raise RefusalError(400, f"dockerfile parse error {on}line {number}: unknown instruction: {word}")
            if word not in FAKED:
                raise not_faked(f"{word} in a Dockerfile; its builds know {', '.join(FAKED)}")
            _check_faked(word, rest)
        if not steps or steps[0][0] != "FROM" or [word for word, _, _ in steps].count("FROM") > 1:
            raise not_faked("a build of anything but one stage that begins with FROM")
        image: Image | None = None
        for number, (word, rest, line) in enumerate(steps, 1):
            yield self._say(
                f"STEP {number}/{len(steps)}: {line}\n" if self._as.podman else f"Step {number}/{len(steps)} : {line}"
            )
            if not self._as.podman:
                yield self._say("\n")
            if word == "FROM":
                async for each in self._from(rest, auth):
                    yield each
                image = None if rest == "scratch" else self._store.get(rest)
                if not self._as.podman:
                    yield self._say(f" ---> {image.id[7:19] if image else ''}\n")
                continue
            key = (image.id if image else "", _cache_key(word, rest, files))
            known = self._store.cache.get(key)
            if known is not None and query.get("nocache") not in {"1", "true"}:
                image = self._store.images[known]
                yield self._say(f"--> Using cache {image.id[7:]}\n" if self._as.podman else " ---> Using cache\n")
            else:
                if word != "COPY" and not self._as.podman:
                    container = secrets.token_hex(6)
                    yield self._say(f" ---> Running in {container}\n")
                    yield self._say(f" ---> Removed intermediate container {container}\n")
                image = self._step(image, word, rest, files, line)
                self._store.cache[key] = image.id
            if not (self._as.podman and number == len(steps)):
                yield self._say(f"{'-->' if self._as.podman else ' --->'} {image.id[7:19]}\n")
        if image is None:
            raise RefusalError(500, "No image was generated. Is your Dockerfile empty?")
        for each in self._end(image, names):
            yield each

    def _say(self, text: str) -> bytes:
        return frame({"stream": text})

    def _end(self, image: Image, names: list[str]) -> list[bytes]:
        said = list[dict[str, Any]]()
        tagged = [{"stream": f"Successfully tagged {self._store.shown(name)}\n"} for name in names]
        if self._as.podman:
            said += [{"stream": f"COMMIT {self._store.shown(name)}\n"} for name in names[:1]] or [
                {"stream": "COMMIT\n"}
            ]
            said += [{"stream": f"--> {image.id[7:19]}\n"}, *tagged, {"stream": f"{image.id[7:]}\n"}]
        said += [{"aux": {"ID": image.id}}, {"stream": f"Successfully built {image.id[7:19]}\n"}, *tagged]
        for name in names:
            self._store.name(image, name, by_hand=True)
            self._events.about("tag", image, self._store.shown(name))
        return [frame(each) for each in said]

    async def _from(self, name: str, auth: str) -> AsyncGenerator[bytes, None]:
        """Pull what a build begins with, unless it is there."""
        if name == "scratch" or self._store.find(name) is not None:
            return
        if self._as.podman:
            yield self._say(f"Trying to pull {Reference.parse(name).with_default_tag()}...\n")
        async for each in self._transfers.pull(Reference.parse(name).with_default_tag(), None, auth):
            if not self._as.podman:
                yield each

    def _step(self, image: Image | None, word: str, rest: str, files: Mapping[str, bytes], line: str) -> Image:
        """Return the image with one more step."""
        base: dict[str, Any] = image.main.document if image else {}
        run: dict[str, Any] = dict(base.get("config") or {})
        variables: list[str] = run.get("Env") or []
        if image is not None and not any(each.startswith("PATH=") for each in variables):
            run["Env"] = [*variables, PATH]
        layers, diff_ids = (image.main.layers if image else ()), list[str](image.main.diff_ids if image else ())
        created, made = rfc3339(time.time_ns()), f"/bin/sh -c #(nop)  {_plain(word, rest)}"
        if word == "COPY":
            copied = copy(rest, files, self._as.podman, line)
            layer = self._layer(tar(copied))
            layers, diff_ids = (*layers, layer), [*diff_ids, layer.diff_id]
            where = rest.rsplit(maxsplit=1)[-1]
            made = f"/bin/sh -c #(nop) COPY file:{digest_of(repr(copied).encode())[7:]} in {where} "
        else:
            apply(run, word, rest)
        if self._as.store == "graph" and self._as.release < 28:
            run["Image"] = image.id if image else ""
        if self._as.podman:
            run["Labels"] = {**(run.get("Labels") or {}), "io.buildah.version": "1.43.2"}
        step: dict[str, Any] = {"created": created, "created_by": made}
        if word != "COPY":
            step["empty_layer"] = True
        history: list[dict[str, Any]] = base.get("history") or []
        document: dict[str, Any] = {
            "architecture": base.get("architecture", "amd64"),
            "config": run,
            "created": created,
            "history": [*history, step],
            "os": base.get("os", "linux"),
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        return self._add(document, layers, image.id if image else "")


def instructions(text: str) -> list[tuple[str, str, str]]:
    """Return the instructions of a Dockerfile: the word, what follows it, and the whole line."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = list[tuple[str, str, str]]()
    for line in whole.splitlines():
        word, _, rest = line.strip().partition(" ")
        found.append((word.upper(), rest.strip(), f"{word.upper()} {rest.strip()}".strip()))
    return found


def apply(run: dict[str, Any], word: str, rest: str) -> None:
    """Change what containers start with, as an instruction says."""
    if word in {"CMD", "ENTRYPOINT"}:
        run[{"CMD": "Cmd", "ENTRYPOINT": "Entrypoint"}[word]] = _words(rest)
    elif word == "LABEL":
        run["Labels"] = {**(run.get("Labels") or {}), **dict(_pairs(rest))}
    elif word == "ENV":
        new = dict(_pairs(rest))
        variables: list[str] = run.get("Env") or []
        kept = [each for each in variables if each.partition("=")[0] not in new]
        run["Env"] = [*kept, *(f"{key}={value}" for key, value in new.items())]
    elif word == "EXPOSE":
        ports: dict[str, object] = {each if "/" in each else f"{each}/tcp": {} for each in rest.split()}
        run["ExposedPorts"] = {**(run.get("ExposedPorts") or {}), **ports}
    elif word == "VOLUME":
        names: list[str] = json.loads(rest) if rest.startswith("[") else rest.split()
        run["Volumes"] = {**(run.get("Volumes") or {}), **{each: {} for each in names}}
    else:
        run[{"USER": "User", "WORKDIR": "WorkingDir"}[word]] = rest


def _words(rest: str) -> list[str]:
    return list(json.loads(rest)) if rest.startswith("[") else ["/bin/sh", "-c", rest]


def _pairs(rest: str) -> list[tuple[str, str]]:
    parts = shlex.split(rest)
    if "=" not in parts[0]:
        return [(parts[0], " ".join(parts[1:]))]
    return [(key, value) for key, _, value in (each.partition("=") for each in parts)]


def _plain(word: str, rest: str) -> str:
    if word in {"LABEL", "ENV"}:
        return f"{word} " + " ".join(f"{key}={value}" for key, value in _pairs(rest))
    return f"{word} {json.dumps(_words(rest))}"


def _cache_key(word: str, rest: str, files: Mapping[str, bytes]) -> str:
    if word != "COPY":
        return f"{word} {rest}"
    sources = [posixpath.normpath(each) for each in rest.split()[:-1]]
    used = {name: data for name, data in files.items() for source in sources if _inside(name, source)}
    return f"{word} {rest} " + " ".join(f"{name} {digest_of(data)}" for name, data in sorted(used.items()))


def _inside(name: str, source: str) -> bool:
    return source in {".", name} or name.startswith(f"{source}/")


def _check_faked(word: str, rest: str) -> None:
    """Refuse the forms of COPY and FROM that are not faked."""
    if word == "FROM" and " " in rest:
        raise not_faked(f"FROM {rest}: a stage with a name or platform")
    if word == "COPY" and (rest.startswith(("--", "[")) or any(letter in rest for letter in "*?<")):
        raise not_faked(f"COPY {rest}: options, patterns and JSON")


def copy(rest: str, files: Mapping[str, bytes], podman: bool, line: str) -> dict[str, bytes | str]:
    """Return the files that a COPY puts into a layer."""
    *sources, target = rest.split()
    copied: dict[str, bytes | str] = {}
    for source in sources:
        path = posixpath.normpath(source.lstrip("/") or ".")
        matching = {name: data for name, data in files.items() if _inside(name, path)}
        if not matching:
            if podman:
                raise RefusalError(
                    500, f'building at STEP "{line}": copier: stat: "/{path}": no such file or directory\n'
                )
            words = "COPY failed: file not found in build context or excluded by .dockerignore"
            raise RefusalError(500, f"{words}: stat {path}: file does not exist")
        for name, data in matching.items():
            inner = posixpath.basename(name) if name == path else posixpath.relpath(name, path)
            whole = target if name == path and not target.endswith("/") else posixpath.join(target, inner)
            copied[whole.lstrip("/")] = data
    return copied
