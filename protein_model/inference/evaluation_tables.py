"""The figures of an evaluation as text: one readable table for the screen and for log files."""

from __future__ import annotations

from collections.abc import Sequence

from ..wording import counted
from .evaluation_report import GroupFigures, Recovery, Report
from .metrics import Estimate
from .step_sweep import StepFigures

_NONE = "-"


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Columns in line, the first one to the left, the others to the right; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return "  ".join(cells).rstrip()

    return "\n".join([line(rows[0]), "  ".join("-" * width for width in widths), *map(line, rows[1:])])


def _percent(estimate: Estimate | None, interval: bool = False) -> str:
    if estimate is None:
        return _NONE
    text = f"{100 * estimate.value:.1f}"
    return f"{text} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]" if interval else text


def _number(estimate: Estimate | None, interval: bool = False) -> str:
    if estimate is None:
        return _NONE
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]" if interval else f"{estimate.value:.2f}"


def report_text(report: Report) -> str:
    """Summary and groups."""
    summary = report.summary
    measured = f"{counted(summary.structures, 'structure')}, {counted(summary.residues, 'scored residue')}"
    parts = [f"{measured}; in brackets 95 % intervals"]
    rows: list[list[str]] = []

    def recovered(name: str, value: Recovery | None) -> None:
        if value is not None:
            estimates = (value.median, value.mean, value.by_residue)
            rows.append([name, *(_percent(estimate, interval=True) for estimate in estimates)])

    recovered("one-shot recovery, %", summary.one_shot_recovery)
    recovered("sampled recovery, %", summary.sampled_recovery)
    if rows:
        parts.append(format_table([["", "median", "mean", "over residues"], *rows]))
    lines = []
    if summary.one_shot_perplexity is not None:
        lines.append(f"one-shot perplexity        {_number(summary.one_shot_perplexity, interval=True)}")
    if summary.order_agnostic_perplexity is not None:
        error = summary.order_agnostic_standard_error
        lines.append(
            f"order-agnostic perplexity  {_number(summary.order_agnostic_perplexity, interval=True)}"
            + (f", Monte Carlo error {error:.3f}" if error is not None and error == error else "")
        )
    if summary.sampled_score is not None:
        lines.append(f"score of the samples       {_number(summary.sampled_score, interval=True)} nats/residue")
    for name, found in (
        ("one-shot", report.one_shot_calibration),
        ("order-agnostic", report.order_agnostic_calibration),
    ):
        if found is not None:
            lines.append(f"{f'calibration error, {name}':35s} {100 * found.error:.1f} %")
    if summary.undesigned:
        lines.append(f"residues without a design  {100 * summary.undesigned:.1f} %, counted as not recovered")
    if lines:
        parts.append("\n".join(lines))
    parts.append(_groups_text(report.groups))
    if report.mask_rate:
        parts.append(
            format_table(
                [
                    ["masked share, %", "draws", "masked residues", "nats/residue", "recovery, %"],
                    *(
                        [
                            f"{100 * row.low:.0f}-{100 * row.high:.0f}",
                            f"{row.draws:,}",
                            f"{row.residues:,}",
                            f"{row.nll:.3f}",
                            f"{100 * row.recovery:.1f}",
                        ]
                        for row in report.mask_rate
                    ),
                ]
            )
        )
    return "\n\n".join(parts)


def _groups_text(groups: dict[str, list[GroupFigures]]) -> str:
    heading = [
        "over residues",
        "structures",
        "residues",
        "one-shot perplexity",
        "one-shot recovery, %",
        "order-agnostic perplexity",
        "sampled recovery, %",
    ]
    rows = [
        [
            f"{kind} {row.group}",
            f"{row.structures:,}",
            f"{row.residues:,}",
            _number(row.one_shot_perplexity),
            _percent(row.one_shot_recovery),
            _number(row.order_agnostic_perplexity),
            _percent(row.sampled_recovery),
        ]
        for kind, members in groups.items()
        for row in members
    ]
    table = [heading, *rows]
    measured = [column for column in range(len(heading)) if column < 3 or any(row[column] != _NONE for row in rows)]
    return format_table([[row[column] for column in measured] for row in table])


def steps_text(figures: Sequence[StepFigures]) -> str:
    """A row for every order and number of denoising steps."""
    return format_table(
        [
            [
                "order",
                "steps",
                "median recovery, %",
                "mean recovery, %",
                "over residues, %",
                "score, nats/residue",
                "native perplexity",
                "residues/s",
            ],
            *(
                [
                    row.order,
                    str(row.steps),
                    _percent(row.recovery_median, interval=True),
                    _percent(row.recovery_mean, interval=True),
                    _percent(row.recovery_by_residue),
                    f"{row.score:.3f}",
                    _number(row.native_perplexity, interval=True),
                    f"{row.residues_per_second:,.0f}",
                ]
                for row in figures
            ),
        ]
    )
