"""Loss curves as SVG that takes the page's colours."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taichu.report.tables import flatten, is_number, pretty
from taichu.training.log import read_log

SIZE = (3.2, 2.0)  # inches
INK = "#010203"  # stands for the page's text colour
LINE = "#3b82d6"
LEFT_OUT = ("step", "rate", "norm", "seconds", "padding")
VALIDATION = "validation."
UNSETTLED = 0.04  # share of the rows that does not set the height: the first losses tower
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
    columns: dict[str, list[tuple[float, float]]] = {}
    for row in read_log(log):
        if not isinstance(row, dict) or not is_number(row.get("step")):
            continue
        for name, value in flatten(row).items():
            if name not in LEFT_OUT and is_number(value):
                columns.setdefault(name, []).append((row["step"], value))
    points = {name: np.array(column, np.float64) for name, column in columns.items()}
    validation = {
        name.removeprefix(VALIDATION): points.pop(name)
        for name in columns
        if name.startswith(VALIDATION)
    }
    loss = points.get("loss")
    drawn = []
    for name in dict.fromkeys((*points, *validation)):
        trained, dots = points.get(name, np.zeros((0, 2))), validation.get(name)
        alike = loss is not None and name != "loss" and trained.shape == loss.shape
        if alike and dots is None and np.allclose(trained, loss, atol=1e-4):
            continue  # the only part of the loss
        drawn.append(Curve(pretty(name), _draw(f"{log}.{name}", trained, dots)))
    return drawn


def _draw(name: str, trained: np.ndarray, validation: np.ndarray | None) -> str:
    """A curve through (step, value) rows, and dots where validation is given."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # the salt keeps the ids of several drawings on one page apart
    settings = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10}
    with matplotlib.rc_context(settings):
        figure = Figure(SIZE)
        axis = figure.add_axes((0.16, 0.14, 0.8, 0.82))
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(4))
        steps, values = trained.T
        smooth = len(values) > 3 * SMOOTH
        faint = {"linewidth": 0.6, "alpha": 0.4} if smooth else {"linewidth": 1.5}
        axis.plot(steps, values, color=LINE, **faint)
        if smooth:
            mean = np.convolve(values, np.full(SMOOTH, 1 / SMOOTH), "valid")
            axis.plot(steps[SMOOTH // 2 :][: len(mean)], mean, color=LINE, linewidth=1.5)
        shown = values[int(np.ceil(UNSETTLED * len(values))) :] if len(values) > 8 else values
        if validation is not None:
            axis.plot(*validation.T, "o", color=INK, markersize=3.5)
            shown = np.append(shown, validation[:, 1])
        room = 0.06 * max(float(np.ptp(shown)), 1e-6)
        axis.set_ylim(shown.min() - room, shown.max() + room)
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
