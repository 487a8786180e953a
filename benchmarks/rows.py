"""What is measured: the rows against the synthetic daemon, and those against real Engines."""

from __future__ import annotations

from pathlib import Path

from .harness import Row
from .job import Job

GIB = 1 << 30
MIB = 1 << 20
FRAMES = 200_000
LARGE = 5 * MIB
CALLS = 1000
PROGRAMS = ("curl", "docker CLI")
PEERS = ("docker-py", "aiodocker")
OURS = ("ours", "ours+uvloop")


def transfers(socket: str, cli: str, directory: Path) -> list[Row]:
    """Return the rows of archives and of frames."""
    source = str(directory / "source.tar")
    save = Job("save_file", socket, f"localhost/save:{GIB}", path=str(directory / "saved.tar"), size=GIB, program=cli)
    load = save._replace(what="load_file", path=source, reference="")
    pull = Job("frames", socket, f"localhost/each:{FRAMES}", times=FRAMES)
    large = f"localhost/large:{LARGE}-1024"
    of_archive = (GIB / MIB, "MiB/s")
    of_frames = (FRAMES, "frames/s")
    return [
        Row("save", "save 1 GiB to a file", (*PROGRAMS, *PEERS, *OURS, "limit"), "curl", save, *of_archive),
        Row(
            "stream",
            "save 1 GiB to nowhere",
            (*PROGRAMS, *PEERS, "bare", *OURS, "limit"),
            "curl",
            save._replace(what="save_nowhere", path=""),
            *of_archive,
        ),
        Row("checksum", "the same with its sha256", ("ours", "ours+checksum"), "ours", save, *of_archive),
        Row(
            "hash",
            "only the sha256 of 1 GiB in memory",
            ("limit",),
            "limit",
            save._replace(what="checksum"),
            *of_archive,
        ),
        Row("load", "load 1 GiB from a file", (*PROGRAMS, *PEERS, *OURS, "limit"), "curl", load, *of_archive),
        Row(
            "unheard",
            "the same, where curl is sent no 100 Continue, and waits a second for it",
            ("curl", "ours"),
            "curl",
            load._replace(reference="unheard"),
            *of_archive,
        ),
        Row(
            "iterable",
            "load 1 GiB from an async iterable of 1 MiB pieces (curl -T: from a file)",
            ("curl", "aiodocker", *OURS, "limit"),
            "curl",
            load._replace(what="load_iterable"),
            *of_archive,
        ),
        Row(
            "decode",
            f"decode {FRAMES:,} frames in memory (bare: json and a dataclass)",
            ("bare", "ours"),
            "bare",
            Job("decode", path=str(directory / "frames.json"), times=FRAMES),
            *of_frames,
        ),
        Row(
            "each",
            f"{FRAMES:,} frames, each in an HTTP chunk (bare: aiohttp alone, nothing decoded)",
            (*PEERS, "bare", *OURS, "limit"),
            "aiodocker",
            pull,
            *of_frames,
        ),
        Row(
            "packed",
            f"{FRAMES:,} frames in HTTP chunks of 64 KiB (bare: aiohttp alone, nothing decoded)",
            (*PEERS, "bare", *OURS, "limit"),
            "aiodocker",
            pull._replace(reference=f"localhost/packed:{FRAMES}"),
            *of_frames,
        ),
        *(
            Row(
                f"large-{size // 1024}",
                f"one frame of {size / MIB:g} MiB in pieces of 1 KiB",
                ("docker-py", *OURS),
                "docker-py",
                Job("frames", socket, large.replace(str(LARGE), str(size)), times=1),
                amount=size / MIB,
                unit="MiB/s",
                rounds=2,
            )
            for size in (LARGE // 4, LARGE)
        ),
    ]


def calls(socket: str, socket_1000: str) -> list[Row]:
    """Return the rows of short requests."""
    rows = [
        Row(
            f"{what}-{concurrency}",
            f"{what}, {'one after the other' if concurrency == 1 else f'{concurrency} at once'}",
            (*peers, "bare", *OURS),
            "bare",
            Job("list_images" if what == "list" else what, socket, times=CALLS, concurrency=concurrency),
            CALLS,
            "calls/s",
        )
        for what, peers in (("inspect", PEERS), ("list", PEERS), ("ping", PEERS[:1]))
        for concurrency in (1, 50)
    ]
    rows.append(
        Row(
            "list-1000",
            "list of 1,000 images",
            (*PEERS, "bare", *OURS),
            "aiodocker",
            Job("list_images", socket_1000, times=100),
            amount=100,
            unit="calls/s",
        )
    )
    return rows


def streams(socket: str) -> list[Row]:
    """Return the row of a thousand pulls at once."""
    return [
        Row(
            "pulls",
            "1,000 pulls at once, 500 frames each in 5 s, and inspect meanwhile",
            ("aiodocker", "ours"),
            "aiodocker",
            Job("pulls", socket, "localhost/paced:500-1000-20-250", times=1000),
            rounds=3,
            shown={"idle": "inspect idle {:.2g} s", "busy": "busy {:.2g} s", "stream_kib": "{:.0f} KiB a stream"},
        )
    ]


def memory(socket: str, directory: Path) -> list[Row]:
    """Return the rows of 10 GiB, one for each way of giving source and target. What memory they take varies little."""
    size = 10 * GIB
    saves = Job("save_file", socket, f"localhost/save:{size}", path=str(directory / "saved.tar"), size=size)
    loads = saves._replace(what="load_file", path=str(directory / "sparse.tar"))
    ways = {
        "save_file": "save 10 GiB to a path",
        "save_object": "save 10 GiB to an open file",
        "save_nowhere": "save_stream of 10 GiB",
        "load_file": "load 10 GiB from a path",
        "load_object": "load 10 GiB from an open file",
        "load_bytes": "load 10 GiB from bytes",
        "load_iterable": "load 10 GiB from an async iterable",
        "load_items": "load 10 GiB from an iterable",
    }
    return [
        Row(
            f"10g-{what}",
            title,
            ("ours",),
            "ours",
            _of_10_gib(saves if what.startswith("save") else loads, what),
            amount=size / MIB,
            unit="MiB/s",
            rounds=1,
        )
        for what, title in ways.items()
    ]


def imports() -> list[Row]:
    """Return the row of imports, in fresh interpreters."""
    modules = ("aiohttp", "docker", "aiodocker", "aiodocker_images", "aiodocker_images ImageService")
    return [Row("import", "import", modules, "aiohttp", Job("import"), shown={"modules": "{:.0f} modules"})]


def _of_10_gib(job: Job, what: str) -> Job:
    # One of them on a real file system is enough.
    return job._replace(what=what, path="/dev/null" if what == "save_object" else job.path)
