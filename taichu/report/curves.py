"""Loss curves as SVG that takes the page's colours."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taichu.report.tables import flatten, is_number, pretty
from taichu.trainer import read_log

SIZE = (3.4, 2.0)  # inches
INK = "#010203"  # stands for the page's text colour
LINE = "#3b82d6"
LEFT_OUT = ("step", "rate", "norm", "seconds", "padding")
SETTLED = 0.03  # share of the rows that does not set the height: the first losses tower
SMOOTH = 15  # rows of the running mean, where there are many


@dataclass(frozen=True)
class Curve:
    """One column of a log as an SVG element."""

    title: str
    svg: str


def curves(log: Path) -> list[Curve]:
    """A curve for each loss of a metrics.jsonl against the step; none where it does not exist."""
    if not Path(log).is_file():
        return []
    rows = [row for row in read_log(log) if isinstance(row, dict) and "step" in row]
    columns: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, value in flatten(row).items():
            if name not in LEFT_OUT and is_number(value):
                columns.setdefault(name, []).append((row["step"], value))
    loss = np.array(columns.get("loss", []))
    drawn = []
    for name, points in columns.items():
        points = np.array(points, np.float64)
        same = name != "loss" and points.shape == loss.shape and np.allclose(points, loss, 0, 1e-4)
        if not same:
            drawn.append(Curve(pretty(name), _draw(f"{log}.{name}", *points.T)))
    return drawn


def _draw(name: str, steps: np.ndarray, values: np.ndarray) -> str:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # the salt keeps the ids of several drawings on one page apart
    settings = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 8}
    with matplotlib.rc_context(settings):
        figure = Figure(SIZE)
        axis = figure.add_axes((0.14, 0.12, 0.84, 0.85))
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(4))
        if len(values) > 3 * SMOOTH:
            axis.plot(steps, values, color=LINE, linewidth=0.6, alpha=0.35)
            mean = np.convolve(values, np.full(SMOOTH, 1 / SMOOTH), "valid")
            axis.plot(steps[SMOOTH // 2 :][: len(mean)], mean, color=LINE, linewidth=1.4)
        else:
            marker = "." if len(values) < 5 else ""
            axis.plot(steps, values, color=LINE, linewidth=1.4, marker=marker)
        settled = values[int(SETTLED * len(values)) :]
        room = 0.06 * max(float(np.ptp(settled)), 1e-6)
        axis.set_ylim(settled.min() - room, settled.max() + room)
        axis.grid(color=INK, alpha=0.12, linewidth=0.6)
        axis.tick_params(colors=INK, length=0)
        axis.spines[:].set_visible(False)
        return _svg(figure)


def _svg(figure) -> str:
    content = io.StringIO()
    figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    text = content.getvalue()
    text = text[text.index("<svg") :]  # without the XML declaration
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.replace(INK, "currentColor")
