"""The live display, drawn without a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from aiodocker_images import ProgressDetail, ProgressFrame
from aiodocker_images.cli.board import Board
from aiodocker_images.cli.jobs import Job, Speed, State


def frame(layer: str, status: str, current: int | None = None, total: int | None = None) -> ProgressFrame:
    detail = ProgressDetail(current=current, total=total) if current is not None else None
    return ProgressFrame(id=layer, status=status, progress_detail=detail)


def job(name: str, *frames: ProgressFrame, state: State = "running", summary: str = "") -> Job:
    made = Job(name, "Pulling", state=state, summary=summary, begun=100.0, ended=103.0)
    for each in frames:
        made.tracker.update(each)
    return made


HALF = [
    frame("0123456789ab", "Downloading", 5_000_000, 10_000_000),
    frame("ba9876543210", "Already exists"),
    frame("cccccccccccc", "Waiting"),
]


def drawn(
    jobs: Sequence[Job], width: int = 80, height: int = 24, *, final: bool = False, unicode: bool = True
) -> list[str]:
    return [line.plain for line in Board(jobs, unicode=unicode).lines(width, height, 110.0, final=final)]


def test_each_image_has_its_layers_below_it_and_the_total_is_last() -> None:
    lines = drawn([job("app:1", *HALF), job("b:2", state="waiting")])
    assert lines[0].startswith("▸ app:1   18%  5MB/10MB") or re.match(r"▸ app:1 +\d+%  5MB/10MB", lines[0])
    assert re.match(r"  0123456789ab Downloading +━+─+ +5MB/10MB$", lines[1])
    assert lines[2] == f"  ba9876543210 {'Already exists':18}"
    assert lines[3].startswith("  cccccccccccc Waiting")
    assert lines[4] == "· b:2  waiting"
    assert re.match(r"Total ━*─+ +\d+%  5MB/10MB$", lines[5])


def test_an_archive_shows_how_much_of_it_went_and_how_long_it_will_take() -> None:
    """What the source said of its size is an estimate: what went counts, when it is more, and when it is there."""
    moving = Job("app:1", "Transferring", state="running", begun=100.0, moved=1_000_000, expected=4_000_000)
    board = Board([moving, Job("b:1", "Transferring")])
    board.lines(100, 24, 100.0)
    moving.moved = 2_000_000
    lines = [line.plain for line in board.lines(100, 24, 102.0)]
    assert lines[:2] == ["▸ app:1   50%  2MB/4MB", "· b:1  waiting"]
    assert lines[-1].endswith(" 25%  2MB/4MB  500kB/s  00:12 left")
    moving.moved = 5_000_000
    assert drawn([moving])[-1].endswith("100%  5MB")
    moving.state, moving.moved, moving.ended = "done", 3_000_000, 103.0
    assert drawn([moving], final=True)[0].endswith("3MB in 3.0s")


def test_what_is_done_has_one_line_with_how_much_and_how_long() -> None:
    done = job("app:1", frame("a", "Downloading", 10, 10_000_000), state="done", summary="sha256:0123  new")
    done.tracker.update(frame("a", "Pull complete"))
    lines = drawn([done, job("no:1", state="failed", summary="manifest unknown")], final=True)
    assert lines[:2] == ["✓ app:1  sha256:0123  new  10MB in 3.0s", "✗ no:1  manifest unknown"]
    assert lines[2].startswith("Total ━━━━")
    assert lines[2].endswith("100%  10MB  3.33MB/s  3.0s")


def test_without_unicode_it_is_drawn_in_ascii() -> None:
    for line in drawn([job("app:1", *HALF), job("x" * 200, state="done")], 60, unicode=False):
        assert line.isascii()


@given(
    st.lists(
        st.tuples(
            st.text(max_size=60),
            st.sampled_from(["waiting", "running", "done", "failed"]),
            st.integers(0, 40),
            st.text(max_size=120),
        ),
        min_size=1,
        max_size=40,
    ),
    st.integers(20, 200),
    st.integers(3, 60),
    st.booleans(),
)
def test_it_fits_any_terminal_and_the_total_is_always_in_sight(
    rows: list[tuple[str, State, int, str]], width: int, height: int, unicode: bool
) -> None:
    jobs = [
        job(name, *(frame(f"{number:012}", "Downloading", 1, 9) for number in range(layers)), state=state, summary=text)
        for name, state, layers, text in rows
    ]
    lines = drawn(jobs, width, height, unicode=unicode)
    assert len(lines) < height
    assert all(cell_len(line) <= width and "\n" not in line and "\x1b" not in line for line in lines)
    assert lines[-1].startswith("Total ")
    assert all(cell_len(line) <= width for line in drawn(jobs, width, height, final=True, unicode=unicode))


def test_more_images_than_lines_are_counted() -> None:
    jobs = [job(f"a:{number}", state="done") for number in range(30)] + [job("b:1"), job("c:1", state="waiting")]
    lines = drawn(jobs, height=6)
    assert "▸ b:1  Pulling" in lines
    assert lines[-2] == "  and 29 more: 29 done" or lines[-2].startswith("  and ")
    assert len(lines) == 5


def test_layers_at_work_come_before_the_others_where_room_is_short() -> None:
    waiting = [frame(f"{number:012}", "Waiting") for number in range(30)]
    lines = drawn([job("app:1", *waiting, frame("0123456789ab", "Downloading", 1, 9))], height=8)
    assert lines[1].startswith("  0123456789ab Downloading")
    assert len(lines) == 7


def test_the_speed_of_the_last_seconds_gives_the_time_that_is_left() -> None:
    speed = Speed()
    for second in range(21):
        speed.sample(second, second * 1000, second / 40)
    assert speed.bytes_per_second == pytest.approx(1000)
    assert speed.seconds_left == pytest.approx(20)


def test_without_a_beginning_there_is_no_speed() -> None:
    speed = Speed()
    assert (speed.bytes_per_second, speed.seconds_left) == (None, None)
    speed.sample(1, 5, 0.5)
    assert (speed.bytes_per_second, speed.seconds_left) == (None, None)


def test_a_layer_that_starts_again_does_not_make_the_speed_negative() -> None:
    speed = Speed()
    speed.sample(0, 5000, 0.5)
    speed.sample(2, 100, 0.5)
    speed.sample(4, 300, 0.5)
    assert speed.bytes_per_second == pytest.approx(100)


@pytest.mark.parametrize("name", ["日本語/アプリ:1", "e\u0301/app:1", "\x1b[31mred:1"])
def test_names_of_any_letters_are_drawn_in_their_width(name: str) -> None:
    for line in drawn([job(name, *HALF), job(name, state="failed", summary="\x1b[2J" * 9)], 40):
        assert cell_len(line) <= 40
        assert "\x1b" not in line
