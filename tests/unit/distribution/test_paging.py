"""How the link to the next page is found."""

from __future__ import annotations

import pytest

from aiodocker_images._distribution.paging import next_page

LINKS = {
    '</v2/a/tags/list?n=50&last=b%2Fc>; rel="next"': "/v2/a/tags/list?n=50&last=b%2Fc",
    '<https://quay.example/v2/a/tags/list?next_page=x%3D%3D>; rel="next"': (
        "https://quay.example/v2/a/tags/list?next_page=x%3D%3D"
    ),
    "</p>; rel=next": "/p",
    '</p>;rel="prev next"': "/p",
    '</p>; title="x"; rel="next"': "/p",
    '</first>; rel="first", </p>; rel="next"': "/p",
    '</p>; rel="prev"': None,
    '</p>; rel="nextish"': None,
    "</p>": None,
    "": None,
    "garbage": None,
}


@pytest.mark.parametrize(("header", "target"), LINKS.items())
def test_the_target_of_the_next_link_is_returned_byte_for_byte(header: str, target: str | None) -> None:
    assert next_page([header]) == target


@pytest.mark.parametrize("part", ["<", "<>", "<>;", "<>; rel=", ";rel=x "])
def test_a_long_header_takes_linear_time(part: str) -> None:
    assert next_page([part * 1_000_000]) is None
