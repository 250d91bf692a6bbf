"""The last hour of some figures, in a ring of fixed size."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

#: Seconds that one point of a chart stands for, and how many there are: an hour.
STEP: Final = 10
POINTS: Final = 360
#: Series that are kept; those beyond it are not.
MOST_SERIES: Final = 100


class History:
    """Figures by name, the worst of every :data:`STEP` seconds.

    The worst is the largest: a lag that was there for a moment must not vanish between two
    points.
    """

    def __init__(self) -> None:
        self._points: deque[tuple[int, dict[str, float]]] = deque(maxlen=POINTS)

    def add(self, at: float, figures: Mapping[str, float | None]) -> dict[str, Any]:
        """Take in the figures of one moment; None is one that nobody knows.

        :param at: seconds since 1970.
        :return: the point that they are a part of: ``at`` and ``figures``.
        """
        start = int(at) // STEP * STEP
        if not self._points or self._points[-1][0] != start:
            self._points.append((start, {}))
        point = self._points[-1][1]
        for name, value in figures.items():
            if value is not None and (name in point or len(point) < MOST_SERIES):
                point[name] = max(value, point.get(name, value))
        return {"at": start, "figures": point}

    def as_json(self) -> dict[str, Any]:
        """All points, oldest first, by series; null where there is none."""
        names = sorted({name for _, point in self._points for name in point})
        return {
            "step": STEP,
            "points": POINTS,
            "times": [start for start, _ in self._points],
            "series": {name: [point.get(name) for _, point in self._points] for name in names},
        }
