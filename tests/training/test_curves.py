"""The picture of a run: everything in it that happened, readable whatever its length."""

import math
import warnings

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from protein_model.training.curves import (
    BEST,
    LINES_AT_MOST,
    TRAIN,
    VALIDATION,
    draw_loss_curve,
    loss_figure,
    running_median,
)
from protein_model.training.progress import BestValidation, LossHistory, loss_at_noise


def made_up(epochs: int, noise_levels: int = 5) -> tuple[LossHistory, BestValidation]:
    """A history with the course of a real one."""
    randomness = np.random.default_rng(epochs)
    history, best = LossHistory(), BestValidation()
    for epoch in range(1, epochs + 1):
        loss = 1.3 + 1.6 * math.exp(-12 * epoch / epochs) + randomness.normal(0, 0.02)
        entry = {
            **{"epoch": epoch, "step": 20 * epoch, "train_loss": loss - 0.1, "validation_loss": loss, "seconds": 60.0},
            **{"one_shot_perplexity": math.exp(loss + 0.2), "one_shot_recovery": 0.4, "learning_rate": 1e-3 / epoch},
            **{loss_at_noise(number): loss * (0.5 + 0.2 * number) for number in range(noise_levels)},
        }
        history.epochs.append(entry)
        best.update(loss, epoch, 0.0)
    return history, best


@pytest.mark.parametrize("epochs", [1, 3, 300, 3000])
def test_all_curves_are_seen_at_any_length(tmp_path, epochs):
    draw_loss_curve(tmp_path / "curve.png", *made_up(epochs))
    picture = matplotlib.image.imread(tmp_path / "curve.png")[:, :, :3]
    for colour in (TRAIN, VALIDATION, BEST):
        seen = (np.abs(picture - to_rgb(colour)) < 0.02).all(-1)
        rows, columns = np.nonzero(seen)
        assert len(rows) > 50, colour
        if epochs > 1 and colour != BEST:
            assert np.ptp(columns) > 0.8 * picture.shape[1]  # from the first epoch to the last
    assert not list(tmp_path.glob(".*"))


@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf), min_size=1, max_size=40), st.integers(0, 6)
)
def test_the_running_median_is_that_of_the_neighbours(values, half):
    found = running_median(np.array(values), 2 * half + 1)
    for place in range(len(values)):
        window = [value for value in values[max(0, place - half) : place + half + 1] if math.isfinite(value)]
        expected = float(np.median(window)) if window else math.nan
        assert found[place] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_epochs_are_counted_in_whole_numbers(epochs):
    figure = loss_figure(*made_up(epochs))
    ticks = figure.axes[0].get_xticks()
    assert len(ticks) and all(float(tick).is_integer() for tick in ticks)
    assert figure.axes[0].get_title().startswith(f"{epochs} epoch{'' if epochs == 1 else 's'}, ")


def under_legends(figure) -> list[tuple[str, int]]:
    """Curve and number of each of its points that a legend hides."""
    figure.canvas = FigureCanvasAgg(figure)
    figure.canvas.draw()
    hidden = []
    for panel in figure.axes:
        if panel.get_legend() is None:
            continue
        box = panel.get_legend().get_window_extent()
        for line in panel.get_lines():
            places = line.get_transform().transform(line.get_xydata())
            if line.get_color() != "black":  # resumes, from bottom to top
                hidden += [(line.get_label(), number) for number, (x, y) in enumerate(places) if box.contains(x, y)]
    return hidden


@pytest.mark.parametrize("resumed_at", [None, 0.3])
@pytest.mark.parametrize("falls", [True, False])
@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 40])
def test_no_legend_hides_a_point(epochs, falls, resumed_at):
    history, best = made_up(epochs)
    if epochs <= 5 and not falls:
        losses = history.column("validation_loss")[::-1]
        for entry, loss in zip(history.epochs, losses, strict=True):
            entry |= {"train_loss": loss - 0.1, "validation_loss": loss, loss_at_noise(4): 1.3 * loss}
    if resumed_at is not None:
        history.resumes = [{"epoch": resumed_at}]
    assert under_legends(loss_figure(history, best)) == []


@pytest.mark.parametrize("epochs", [6, 40, 300])
def test_after_a_few_epochs_the_legend_stays_in_its_corner(epochs):
    figure = loss_figure(*made_up(epochs))
    figure.canvas = FigureCanvasAgg(figure)
    figure.canvas.draw()
    losses = figure.axes[0]
    corner = losses.transAxes.inverted().transform(losses.get_legend().get_window_extent())[1]
    assert (corner > 0.95).all()


def test_perplexity_and_recovery_of_one_epoch_are_two_points():
    figure = loss_figure(*made_up(1))
    figure.canvas = FigureCanvasAgg(figure)
    figure.canvas.draw()
    panels = [panel for panel in figure.axes if panel.get_ylabel() in ("perplexity", "recovery, %")]
    heights = [panel.transData.transform(panel.get_lines()[0].get_xydata())[0][1] for panel in panels]
    assert len(heights) == 2 and abs(heights[0] - heights[1]) > 20  # pixels


def test_nothing_is_written_before_the_first_epoch_is_over(tmp_path):
    draw_loss_curve(tmp_path / "curve.png", LossHistory(), BestValidation())
    assert not list(tmp_path.iterdir())


def legend_of(history, best):
    losses = loss_figure(history, best).axes[0]
    return [text.get_text() for text in losses.get_legend().get_texts()]


def test_the_best_resumes_rollbacks_and_left_out_steps_are_named():
    history, best = made_up(50)
    history.resumes = [{"epoch": 10.5}, {"epoch": 20.0}]
    history.divergences = [{"epoch": 30.2, "action": "rollback"}, {"epoch": 31.0, "action": "skip"}]
    assert legend_of(history, best) == [
        *("training", "validation", f"best {best.loss:.4f}, epoch {best.epoch}"),
        *("resumed (2)", "rolled back (1)", "step left out (1)"),
    ]


def test_a_resume_is_a_line_where_it_was_and_many_are_ticks():
    history, best = made_up(50)
    history.resumes = [{"epoch": 10.5}]
    [line] = [line for line in loss_figure(history, best).axes[0].get_lines() if line.get_label() == "resumed (1)"]
    assert list(line.get_xdata()) == [10.5, 10.5] and list(line.get_ydata()) == [0, 1]
    history.resumes = [{"epoch": float(epoch)} for epoch in range(1, LINES_AT_MOST + 2)]
    losses = loss_figure(history, best).axes[0]
    marks = [line for line in losses.get_lines() if line.get_color() == "black"]
    assert len(marks) == LINES_AT_MOST + 1 and all(line.get_ydata()[1] < 0.1 for line in marks)


def test_losses_that_differ_by_factors_are_shown_on_a_logarithmic_axis():
    history, best = made_up(30)
    assert loss_figure(history, best).axes[0].get_yscale() == "linear"
    for entry in history.epochs:
        entry["train_loss"] = 100.0 / entry["epoch"] ** 2
    assert loss_figure(history, best).axes[0].get_yscale() == "log"


def test_one_spike_does_not_flatten_the_rest():
    history, best = made_up(300)
    history.epochs[100]["train_loss"] = 480.0
    losses = loss_figure(history, best).axes[0]
    assert losses.get_ylim()[1] < 5
    assert "up to 480 above" in [text.get_text() for text in losses.texts]


def test_values_that_are_missing_or_not_finite_are_left_out(tmp_path):
    history, best = made_up(300)
    history.epochs[3]["validation_loss"] = math.nan
    history.epochs[4]["train_loss"] = math.inf
    del history.epochs[5]["one_shot_recovery"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_loss_curve(tmp_path / "curve.png", history, best)


def test_a_model_of_one_noise_level_has_no_panel_for_them():
    assert len(loss_figure(*made_up(5, noise_levels=5)).axes) == 5  # four panels, and the second scale of one
    one_pass, best = made_up(5, noise_levels=0)
    for entry in one_pass.epochs:
        entry[loss_at_noise(4)] = entry["validation_loss"]
    assert len(loss_figure(one_pass, best).axes) == 4
