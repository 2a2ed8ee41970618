"""Do the pictures show the whole curve, and does a missing matplotlib say so in one line?"""

import sys

import pytest

from retinaface_tf.evaluation import plots


@pytest.fixture
def axes_of(monkeypatch):
    """The axes of what is drawn, instead of a file."""
    pytest.importorskip("matplotlib")
    drawn = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure.axes[0]))
    return drawn


LABELS = {"x_label": "false accept rate", "y_label": "true accept rate"}


def test_a_logarithmic_axis_spans_its_points(axes_of):
    plots.plot_curves("x.png", {"a": ([1e-6, 1e-1], [0.2, 0.9])}, **LABELS, log_x=True, markers=True)
    low, high = axes_of[0].get_xlim()
    assert 1e-7 < low <= 1e-6 and 1e-1 <= high < 1


def test_ranges_and_labels_are_kept(axes_of):
    plots.plot_curves("x.png", {"a": ([0, 9], [0, 1]), "b": ([0, 1], [1, 0])}, **LABELS, x_range=(0, 2), title="t")
    assert axes_of[0].get_xlim() == (0, 2)
    assert [text.get_text() for text in axes_of[0].get_legend().get_texts()] == ["a", "b"]
    assert (axes_of[0].get_xlabel(), axes_of[0].get_title()) == ("false accept rate", "t")


def test_a_bar_that_does_not_exist_is_called_none(axes_of):
    plots.plot_bars("x.png", {"small": 0.25, "large": None}, y_label="AP", y_range=(0, 1))
    assert [text.get_text() for text in axes_of[0].texts] == ["0.25", "none"]
    assert axes_of[0].get_ylim() == (0, 1)


def test_a_suffix_that_is_no_picture_is_refused(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=r"cannot draw into .*curve\.txt"):
        plots.plot_bars(tmp_path / "curve.txt", {"a": 1}, y_label="AP")


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"retinaface-tf\[plots\]"):
        plots.plot_bars("x.png", {}, y_label="AP")
