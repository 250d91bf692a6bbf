"""The last hour of the figures in the charts, in a ring of fixed size."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

#: Seconds per point of a chart, and number of points: one hour.
STEP: Final = 10
POINTS: Final = 360
#: Maximum number of series; further ones are ignored.
MAX_SERIES: Final = 100


class History:
    """Figures by name, with the maximum of every :data:`STEP` seconds.

    The maximum keeps a short rise of the lag visible.
    """

    def __init__(self) -> None:
        self._points: deque[tuple[int, dict[str, float]]] = deque(maxlen=POINTS)

    def add(self, at: float, figures: Mapping[str, float | None]) -> dict[str, Any]:
        """Add the figures of one sample.

        :param at: UNIX seconds.
        :param figures: name → value; None if it is unknown.
        :return: the point that contains the sample: ``at`` and ``figures``.
        """
        start = int(at) // STEP * STEP
        if not self._points or self._points[-1][0] != start:
            self._points.append((start, {}))
        point = self._points[-1][1]
        for name, value in figures.items():
            if value is not None and (name in point or len(point) < MAX_SERIES):
                point[name] = max(value, point.get(name, value))
        return {"at": start, "figures": point}

    def as_json(self) -> dict[str, Any]:
        """Return all points by series, oldest first; a missing value is None."""
        names = sorted({name for _, point in self._points for name in point})
        return {
            "step": STEP,
            "points": POINTS,
            "times": [start for start, _ in self._points],
            "series": {name: [point.get(name) for _, point in self._points] for name in names},
        }
