"""Plots as small SVG files, written by hand: nothing to install, nothing to keep in step."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

COLOURS = ("#1b6ca8", "#d1495b", "#66a182", "#edae49", "#6d597a", "#444444")
_W, _H, _LEFT, _TOP, _RIGHT, _BOTTOM = 760, 300, 56, 34, 150, 40


class Plot:
    """Axes in a box; series are added, then it is saved."""

    def __init__(self, title: str, x: str, y: str, across: float, top: float) -> None:
        self.across, self.top = max(across, 1e-9), max(top, 1e-9)
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_W}" height="{_H}" '
            f'font-family="sans-serif" font-size="12">',
            f'<rect width="{_W}" height="{_H}" fill="white"/>',
            f'<text x="{_LEFT}" y="20" font-size="14">{escape(title)}</text>',
            f'<text x="{_LEFT}" y="{_H - 8}">{escape(x)}</text>',
        ]
        for tick in range(5):
            value = self.top * tick / 4
            at = self._y(value)
            self._parts.append(
                f'<path d="M{_LEFT} {at:.1f}H{_W - _RIGHT}" stroke="#ddd"/>'
                f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:.3g}</text>'
            )
        self._parts.append(f'<text x="6" y="{_TOP - 4}" font-size="11">{escape(y)}</text>')
        self._named = 0

    def _x(self, value: float) -> float:
        return _LEFT + (_W - _LEFT - _RIGHT) * value / self.across

    def _y(self, value: float) -> float:
        return _H - _BOTTOM - (_H - _TOP - _BOTTOM) * min(value, self.top) / self.top

    def _name(self, name: str) -> str:
        colour = COLOURS[self._named % len(COLOURS)]
        at = _TOP + 14 + 18 * self._named
        self._named += 1
        self._parts.append(
            f'<rect x="{_W - _RIGHT + 10}" y="{at - 9}" width="10" height="10" fill="{colour}"/>'
            f'<text x="{_W - _RIGHT + 26}" y="{at}">{escape(name)}</text>'
        )
        return colour

    def line(self, name: str, points: Sequence[tuple[float, float]]) -> None:
        """A series as a line."""
        colour = self._name(name)
        path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        )

    def mark(self, x: float, label: str) -> None:
        """A vertical line with a word at its top."""
        at = self._x(x)
        self._parts.append(
            f'<path d="M{at:.1f} {_TOP}V{_H - _BOTTOM}" stroke="#999" stroke-dasharray="4 3"/>'
            f'<text x="{at + 4:.1f}" y="{_TOP + 10}" fill="#666">{escape(label)}</text>'
        )

    def bars(self, values: Sequence[tuple[str, float]]) -> None:
        """One bar per (name, value), told apart by colour."""
        width = self.across / max(1, len(values))
        for index, (name, value) in enumerate(values):
            colour = self._name(name)
            left, right = self._x((index + 0.15) * width), self._x((index + 0.85) * width)
            top = self._y(value)
            self._parts.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
                f'height="{_H - _BOTTOM - top:.1f}" fill="{colour}"/>'
                f'<text x="{(left + right) / 2:.1f}" y="{top - 4:.1f}" '
                f'text-anchor="middle">{value:.2f}</text>'
            )

    def save(self, path: Path) -> None:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*self._parts, "</svg>", ""]))


def smooth(values: Sequence[float], width: int = 5) -> list[tuple[float, float]]:
    """(index, mean of the last ``width`` values)."""
    return [
        (float(at), sum(values[max(0, at - width + 1) : at + 1]) / min(width, at + 1))
        for at in range(len(values))
    ]
