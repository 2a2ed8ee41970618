"""The curves of an evaluation as pictures. Needs matplotlib (`pip install retinaface-tf[plots]`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retinaface_tf.common.types import PathLike


def plot_curves(
    path: PathLike,
    curves: Mapping[str, tuple[Any, Any]],
    *,
    x_label: str,
    y_label: str,
    title: str | None = None,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    log_x: bool = False,
    markers: bool = False,
) -> None:
    """Draw named curves into one picture file.

    Args:
        path: Picture to write; the suffix chooses the format (png, svg, pdf).
        curves: Dict label -> `(x, y)`, two sequences of equal length.
        x_label: Text under the axis, with its unit.
        y_label: Text beside the axis, with its unit.
        title: Text above, or None.
        x_range: `(low, high)` or None.
        y_range: `(low, high)` or None.
        log_x: Whether x is logarithmic.
        markers: Whether points are shown: for few, measured ones.

    Raises:
        ValueError: matplotlib is missing, or the suffix is not a picture format.
    """
    figure_class = _figure_class()
    figure = figure_class(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for index, (label, (x, y)) in enumerate(curves.items()):
        # Line styles as well as colours: readable in grey and by the colour-blind.
        style = ("-", "--", "-.", ":")[index % 4]
        axes.plot(x, y, style, label=label, linewidth=1.6, marker="o" if markers else None, markersize=4)
    if log_x:  # before the limits, which would otherwise be those of a linear axis
        axes.set_xscale("log")
    _label(axes, x_range=x_range, y_range=y_range, xlabel=x_label, ylabel=y_label, title=title)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="best", fontsize=9)
    _save(figure, path)


def plot_bars(
    path: PathLike,
    values: Mapping[str, float | None],
    *,
    y_label: str,
    title: str | None = None,
    y_range: tuple[float, float] | None = None,
) -> None:
    """Draw named bars, their values above them.

    Args:
        path: Picture to write.
        values: Dict label -> float, or None for a bar that does not exist.
        y_label: Text beside the axis, with its unit.
        title: Text above, or None.
        y_range: `(low, high)` or None.
    """
    figure_class = _figure_class()
    figure = figure_class(figsize=(max(6.4, 0.42 * len(values) + 2), 4.8), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.bar(range(len(values)), [value or 0 for value in values.values()], color="#3b6ea5")
    axes.bar_label(bars, [f"{value:.2f}" if value is not None else "none" for value in values.values()], fontsize=8)
    axes.set_xticks(range(len(values)), list(values), rotation=60, ha="right", fontsize=8)
    _label(axes, x_range=None, y_range=y_range, ylabel=y_label, title=title)
    _save(figure, path)


def _label(axes, *, x_range, y_range, **texts):
    axes.set(**texts)
    # `set(xlim=None)` freezes what the limits are now: leave them alone instead.
    if x_range is not None:
        axes.set_xlim(x_range)
    if y_range is not None:
        axes.set_ylim(y_range)


def _figure_class():
    try:
        # The object interface: no display, no global state, safe beside a user's own pyplot.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("plots need matplotlib: pip install 'retinaface-tf[plots]'") from error
    return Figure


def _save(figure, path):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:
        raise ValueError(f"cannot draw into {path}: {error}") from error
