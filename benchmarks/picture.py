"""Draws plots as SVG, with logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from .growth import Plot

WIDTH, HEIGHT = 520, 380
LEFT, RIGHT, TOP, BOTTOM = 60, 100, 40, 50
COLOURS = {"ours": "#c1272d", "aiodocker": "#0071bc", "docker-py": "#2b8a3e", "curl": "#6b6b6b"}


def draw(plots: Sequence[Plot]) -> str:
    """Return a picture of all plots, two beside each other."""
    rows = -(-len(plots) // 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" height="{rows * HEIGHT}">',
        "<style>text { font-family: sans-serif; font-size: 12px }</style>",
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, plot in enumerate(plots):
        x, y = number % 2 * WIDTH, number // 2 * HEIGHT
        parts += [f'<g transform="translate({x} {y})">', *_plot(plot), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _plot(plot: Plot) -> list[str]:
    sizes = [size for curve in plot.curves for size, _ in curve.points]
    seconds = [second for curve in plot.curves for _, second in curve.points]
    low, high = math.floor(math.log10(min(seconds))), math.ceil(math.log10(max(seconds)))
    left, right = math.log10(min(sizes)), math.log10(max(sizes))

    def x(size: float) -> float:
        return LEFT + (math.log10(size) - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    def y(second: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(second) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text x="{LEFT}" y="22" font-size="14">{escape(plot.title)}</text>']
    for power in range(low, high + 1):
        at = y(10.0**power)
        label = f"{10.0**power:g} s"
        parts += [
            f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>',
            f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{label}</text>',
        ]
    for size, label in plot.ticks:
        at, bottom = x(size), HEIGHT - BOTTOM
        parts += [
            f'<path d="M{at:.1f} {TOP}V{bottom}" stroke="#eeeeee"/>',
            f'<text transform="translate({at + 4:.1f} {bottom + 12}) rotate(30)">{escape(label)}</text>',
        ]
    labelled: list[float] = []
    for curve in sorted(plot.curves, key=lambda curve: curve.points[-1][1], reverse=True):
        colour = COLOURS.get(curve.contestant, "black")
        path = "L".join(f"{x(size):.1f} {y(second):.1f}" for size, second in curve.points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x(size):.1f}" cy="{y(second):.1f}" r="3" fill="{colour}"/>' for size, second in curve.points
        ]
        at = max(y(curve.points[-1][1]) + 4, labelled[-1] + 14 if labelled else 0.0)
        labelled.append(at)
        parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{at:.1f}" fill="{colour}">{escape(curve.contestant)}</text>')
    return parts
