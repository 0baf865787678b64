"""Options for constraints, as `design` and `score` have them, and what they say in the words of a constraints file."""

from __future__ import annotations

import argparse
import math
from typing import Any

from ..errors import UserError


class OptionError(UserError, ValueError):
    """An option cannot be read."""


def add_selection_options(parser: argparse._ArgumentGroup) -> None:
    """Options that name residues by selections."""
    parser.add_argument("--fixed", default="", help='residues that keep their type and are shown: "A12-20,B"')
    parser.add_argument("--designed", default="", help='residues to design, all others are fixed: "A" or "A1-50,C7"')
    parser.add_argument("--excluded", default="", help="residues that the model does not see at all")


def add_design_options(parser: argparse._ArgumentGroup) -> None:
    """All other constraints."""
    parser.add_argument(
        "--sequence", action="append", default=[], metavar="CHAIN=LETTERS",
        help="a partial sequence, a letter for each residue of the chain; X, _ or - is designed",
    )  # fmt: skip
    parser.add_argument(
        "--tied", action="append", default=[], metavar="A=B=C",
        help="residues that get one type together: chains, ranges (A1-20=B1-20), with weights (A=0.5*B)",
    )  # fmt: skip
    parser.add_argument("--homo_oligomer", action="store_true", help="tie all chains, by residue number")
    parser.add_argument("--omit", default="", metavar="LETTERS", help="residue types that are never chosen, such as CM")
    parser.add_argument(
        "--omit_at", action="append", default=[], metavar="RESIDUES=LETTERS", help='for some residues: "A12-20=CP"'
    )
    parser.add_argument("--bias", default="", metavar="LETTER:VALUE,...", help='added to logits, in nats: "A:-0.5,K:1"')
    parser.add_argument(
        "--bias_at", action="append", default=[], metavar="RESIDUES=LETTER:VALUE,...", help='"A12-20=K:1.5,E:-1"'
    )
    parser.add_argument("--temperature_at", action="append", default=[], metavar="RESIDUES=VALUE", help='"A12-20=0.5"')


def given_constraints(options: argparse.Namespace) -> dict[str, Any]:
    """What the options say, by the names of `Constraints`; options that were not given are left out.

    Raises
    ------
    OptionError : a value is not in the form that the help shows
    ConstraintError : a value cannot be meant for any structure
    """
    from ..inference.constraints import constraints_from

    entries: dict[str, Any] = {
        "fixed": options.fixed,
        "designed": options.designed,
        "excluded": options.excluded,
        "sequence": dict(_pair(text, "--sequence") for text in options.sequence),
        "tied": options.tied,
        "homo_oligomer": options.homo_oligomer,
        "omit": options.omit,
        "omit_at": dict(_pair(text, "--omit_at") for text in options.omit_at),
        "bias": _biases(options.bias, "--bias"),
        "bias_at": {
            residues: _biases(values, "--bias_at")
            for residues, values in (_pair(text, "--bias_at") for text in options.bias_at)
        },
        "temperature_at": {
            residues: _number(value, "--temperature_at")
            for residues, value in (_pair(text, "--temperature_at") for text in options.temperature_at)
        },
    }
    for name in ("sequence", "omit_at", "bias_at", "temperature_at"):
        if len(entries[name]) < len(getattr(options, name)):
            raise OptionError(f"--{name}: the same residues are there twice; join what is said of them")
    for residues, temperature in entries["temperature_at"].items():
        if temperature < 0:
            raise OptionError(f"--temperature_at {residues}: must be at least 0, but is {temperature:g}")
    entries = {name: value for name, value in entries.items() if value}
    constraints_from(entries, "--")  # so that what fits no structure is refused once, not for each of them
    return entries


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name.strip() and sign and value.strip()):
        raise OptionError(f"{option} {text}: must be RESIDUES=VALUE, such as A12-20=...")
    return name.strip(), value.strip()


def _biases(text: str, option: str) -> dict[str, float]:
    biases: dict[str, float] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        letter, sign, value = entry.partition(":")
        if not sign or letter in biases:
            raise OptionError(f"{option} {text}: must be LETTER:VALUE,..., each letter once, such as A:-0.5,K:1")
        biases[letter] = _number(value, option)
    return biases


def _number(text: str, option: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise OptionError(f"{option}: {text!r} is no number")
    return number
