"""How everything is drawn: one colour and marker per model, a figure without global state, lines, bands, spectra."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from statemix.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Look(NamedTuple):
    """How a model is drawn, as matplotlib takes it."""

    color: str
    marker: str


SHADES = {
    "bdlru": ("#8FA7E8", "#4F7BD9", "#0072B2", "#20509E", "#12306B", "#081A40"),
    "hlru": ("#F5B183", "#EE8A45", "#D55E00", "#A94A00", "#7A3500", "#4A2000"),
}
"""One hue per family, a shade for each of `SHADED` block sizes or orders."""

SHADED = {2: "s", 3: "^", 4: "o", 5: "D", 8: "v", 16: "P"}

LOOKS = {
    **{f"{name}{m}": Look(color, marker) for name, shades in SHADES.items()
       for color, (m, marker) in zip(shades, SHADED.items(), strict=True)},
    **dict.fromkeys(("diagonal", "bdlru1", "hlru1"), Look("#56B4E9", ".")),
    "bdlru": Look("#0072B2", "o"),
    "hlru": Look("#D55E00", "s"),
    "hardbdlru": Look("#C51B7D", "^"),
    "hardhlru": Look("#7FBC41", "v"),
    "lstm": Look("#009E73", "X"),
    "lru": Look("#CC79A7", "<"),
    "mamba2": Look("#E69F00", ">"),
    "deltanet": Look("#882255", "p"),
    "gateddeltanet": Look("#44AA99", "h"),
    **dict.fromkeys(("gateddeltaproduct", "gateddeltaproduct2"), Look("#999933", "*")),
    "gateddeltaproduct4": Look("#5F5F1A", "*"),
    "rwkv7": Look("#AA4499", "d"),
    "mlstm": Look("#117733", "X"),
    "slstm": Look("#88CCEE", "X"),
    "pdssm": Look("#332288", "H"),
    "attention": Look("#000000", "+"),
}  # fmt: skip
"""By the model's name in lower case, letters and digits alone. Distinguishable by colour-blind readers in the usual
comparisons (after Okabe and Ito, and Tol)."""

OTHERS = Look("#777777", ".")
"""Several models drawn as one series."""

SPARE = ("#661100", "#6699CC", "#AA4466", "#DDCC77", "#4477AA", "#228833", "#BBBBBB", "#EE6677")

MAX_SERIES = 8
"""Series in one panel."""


def look_of(model: str) -> Look:
    """The look of a model by its name or label: "bdlru-4", "BD-LRU m = 4", "Mamba-2"; the same for the same name."""
    key = re.sub(r"[^a-z0-9]", "", re.sub(r"\bm = |\(.*", "", model.lower()))
    look = LOOKS.get(key) or LOOKS.get(key.rstrip("0123456789"))
    return look or Look(SPARE[sum(key.encode()) % len(SPARE)], "o")


STYLE: Any = {
    "font.size": 11,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.hashsalt": "statemix",
    "text.parse_math": False,
}
"""Applied while a figure is made and saved; nothing of it stays."""

GREY = "#888888"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches. ImportError says how to install matplotlib."""
    require("matplotlib")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def new_panels(
    count: int, columns: int, size: tuple[float, float], margin: tuple[float, float] = (0.0, 0.0)
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels of a size, in rows of `columns`, and a margin for a legend; all in inches."""
    rows = -(-count // columns)
    figure = new_figure(size[0] * columns + margin[0], size[1] * rows + margin[1])
    axes = list(figure.subplots(rows, columns, squeeze=False).flatten())
    for panel in axes[count:]:
        panel.remove()
    return figure, axes[:count]


def draw_line(axes: Axes, x: Any, mean: Any, low: Any, high: Any, color: str, **style: Any) -> None:
    """A line of means with a band from low to high, a bar where there is one point; style: as `Axes.plot` takes it."""
    axes.plot(x, mean, color=color, **style)
    axes.fill_between(x, low, high, color=color, alpha=0.13, linewidth=0)
    if len(x) == 1:
        axes.vlines(x, low, high, color=color, alpha=0.4)


def draw_eigenvalues(axes: Axes, real: Any, imaginary: Any, color: str) -> None:
    """Points of the complex plane and the unit circle."""
    from matplotlib.patches import Circle

    axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor=GREY, linewidth=1))
    axes.plot(real, imaginary, ".", color=color, alpha=0.15, markersize=3, rasterized=True)
    axes.set(xlim=(-1.08, 1.08), ylim=(-1.08, 1.08), aspect="equal", xlabel="Re λ", ylabel="Im λ")


def render(make: Callable[[], Figure]) -> tuple[bytes, bytes]:
    """A figure, made and saved under `STYLE`, as SVG (the same bytes for the same figure) and as PNG."""
    require("matplotlib")
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, svg, png = make(), io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", dpi=160, metadata={"Date": None})
        figure.savefig(png, format="png", dpi=160)
    return svg.getvalue(), png.getvalue()
