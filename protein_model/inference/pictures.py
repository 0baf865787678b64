"""A picture of the designs for one structure: sequence logo and heat map of residue types, position by position."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # designs are made where there is no screen
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from ..structures import RESIDUE_LETTERS, sequence_of
from ..structures.selections import residue_name
from ..wording import counted
from .constraints import NUM_RESIDUE_TYPES
from .design import DesignResult
from .folders import written_whole

RESIDUES_PER_LINE = 50
NAMED_EVERY = 5
# By chemistry, and in this order in the heat map: aliphatic, aromatic, polar, negative, positive, special.
_COLOURS = {
    "AVLIM": "#4d4d4d",
    "FWYH": "#c47a00",
    "STNQ": "#2a9d3a",
    "DE": "#d62728",
    "KR": "#1f4fd6",
    "CGP": "#8a2be2",
}
_LETTERS = "".join(_COLOURS)
_COLOUR_OF = {letter: colour for letters, colour in _COLOURS.items() for letter in letters}
_MOST_BITS = float(np.log2(NUM_RESIDUE_TYPES))
_SMALLEST_LETTER = 0.04  # bits; below it nothing can be seen


def draw_designs(path: Path, result: DesignResult) -> None:
    """Write the picture as PNG.

    The height of a stack of letters is the information of its position, log2(20) minus the entropy of the types among
    the designs (Schneider and Stephens 1990, without their correction for few sequences). Native types stand below,
    fixed residues in grey.
    """
    frequency = type_frequencies(result.designs.residue_type)
    count = len(frequency)
    lines = -(-count // RESIDUES_PER_LINE)
    figure, axes = plt.subplots(
        2 * lines, 1, figsize=(14, 4.2 * lines), height_ratios=[2, 3] * lines, layout="constrained", squeeze=False
    )
    for line in range(lines):
        rows = np.arange(line * RESIDUES_PER_LINE, min((line + 1) * RESIDUES_PER_LINE, count))
        logo, heat = axes[2 * line, 0], axes[2 * line + 1, 0]
        _draw_logo(logo, frequency[rows])
        _draw_heat_map(heat, frequency[rows])
        _name_residues(logo, heat, result, rows)
    settings = result.settings
    steps = counted(settings.num_steps, "step") if isinstance(settings.num_steps, int) else "one step per residue"
    axes[0, 0].set_title(
        f"{result.structure.name}: {counted(len(result), 'design')}, temperature {settings.temperature:g}, "
        f"{steps}, order {settings.order}, mean score {result.scores.mean():.3f} nats/residue, "
        f"mean recovery {100 * result.recovery.mean():.1f} %",
        loc="left",
    )
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
    plt.close(figure)


def type_frequencies(residue_type: np.ndarray) -> np.ndarray:
    """(L, 20) shares of the types among (samples, L); a row of zeros where there is none."""
    hits = residue_type[..., None] == np.arange(NUM_RESIDUE_TYPES)
    return np.asarray(hits.sum(axis=0) / np.maximum(hits.any(axis=2).sum(axis=0), 1)[:, None])


def _draw_logo(axes: Axes, frequency: np.ndarray) -> None:
    entropy = -np.where(frequency > 0, frequency * np.log2(np.where(frequency > 0, frequency, 1.0)), 0.0).sum(axis=1)
    bits = np.where(frequency.any(axis=1), _MOST_BITS - entropy, 0.0)
    patches, colours = [], []
    for place, (shares, height) in enumerate(zip(frequency, bits, strict=True)):
        bottom = 0.0
        for index in np.argsort(shares, kind="stable"):
            tall = float(shares[index] * height)
            if tall < _SMALLEST_LETTER:
                continue
            letter = RESIDUE_LETTERS[index]
            moved = Affine2D().scale(0.9, tall).translate(place - 0.45, bottom)
            patches.append(PathPatch(moved.transform_path(_outline(letter))))
            colours.append(_COLOUR_OF[letter])
            bottom += tall
    axes.add_collection(PatchCollection(patches, facecolors=colours, linewidths=0))
    axes.set_ylim(0, _MOST_BITS)
    axes.set_ylabel("bits")


@cache
def _outline(letter: str) -> Outline:
    """The letter in the unit square."""
    path = TextPath((0, 0), letter, size=1, prop=FontProperties(family="DejaVu Sans Mono", weight="bold"))
    box = path.get_extents()
    return Affine2D().translate(-box.x0, -box.y0).scale(1 / box.width, 1 / box.height).transform_path(path)


def _draw_heat_map(axes: Axes, frequency: np.ndarray) -> None:
    order = [RESIDUE_LETTERS.index(letter) for letter in _LETTERS]
    axes.imshow(frequency[:, order].T, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks(range(len(order)), _LETTERS, fontsize=7)
    axes.set_ylabel("share of designs")


def _name_residues(logo: Axes, heat: Axes, result: DesignResult, rows: np.ndarray) -> None:
    native = sequence_of(result.structure.residue_type[rows])
    logo.set_xticks(range(len(rows)), native, fontsize=8)
    for label, designed in zip(logo.get_xticklabels(), result.plan.designed[rows].tolist(), strict=True):
        label.set_color("black" if designed else "#b0b0b0")
    places = range(0, len(rows), NAMED_EVERY)
    heat.set_xticks(places, [residue_name(result.structure, int(rows[place])) for place in places], fontsize=8)
    for axes in (logo, heat):
        axes.set_xlim(-0.5, RESIDUES_PER_LINE - 0.5)
        starts = np.flatnonzero(np.diff(result.structure.chain_index[rows])) + 0.5
        for start in starts.tolist():
            axes.axvline(start, color="black", linewidth=0.8)
