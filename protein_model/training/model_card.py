"""The README.md of a published model: what it is, on what and how it was trained, how good it is, how to use it.

Written from files that training left; paths of the training machine and what they would tell of it stay out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from ..data.addresses import is_address
from ..wording import counted

CARD_FILE = "README.md"
DEFAULT_LICENCE = "mit"
HISTORY_ROWS = 12

_METRICS = {
    "train_loss": "training loss, nats per scored residue",
    "validation_loss": "validation loss, nats per scored residue",
    "one_shot_perplexity": "perplexity, all residues predicted at once from the backbone alone",
    "one_shot_recovery": "recovery, all residues predicted at once from the backbone alone",
}


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


_EVALUATION_ROWS: list[tuple[str, tuple[str, ...], Callable[[Any], str]]] = [
    ("structures", ("summary", "structures"), "{:,}".format),
    ("scored residues", ("summary", "residues"), "{:,}".format),
    ("sampled recovery, median over structures", ("summary", "sampled_recovery", "median", "value"), _percent),
    ("sampled recovery, mean over structures", ("summary", "sampled_recovery", "mean", "value"), _percent),
    ("one-shot recovery, median over structures", ("summary", "one_shot_recovery", "median", "value"), _percent),
    ("one-shot recovery, mean over structures", ("summary", "one_shot_recovery", "mean", "value"), _percent),
    ("one-shot perplexity", ("summary", "one_shot_perplexity", "value"), "{:.2f}".format),
    ("order-agnostic perplexity", ("summary", "order_agnostic_perplexity", "value"), "{:.2f}".format),
    ("samples per structure", ("settings", "num_sequences"), str),
    ("temperature of sampling", ("settings", "temperature"), "{:g}".format),
    ("denoising steps", ("settings", "num_steps"), str),
    ("order of sampling", ("settings", "order"), str),
]
# Settings of a launch rather than of the model: where files are, how it was saved, watched and published.
_NOT_SHOWN = frozenset(
    {
        *(
            "config",
            "resume_from",
            "save_dir",
            "cache_dir",
            "save_every",
            "save_every_steps",
            "keep_last",
            "keep_every",
        ),
        *("mirror_checkpoints_to", "dry_run"),
        *("num_workers", "num_example_designs", "report_to", "timeout_minutes", "push_to_hub", "hub_model_id"),
        *("hub_private", "hub_every_minutes", "hub_license"),
    }
)


def model_card(
    config: Mapping[str, Any],
    run: Mapping[str, Any] | None,
    history: Mapping[str, Any] | None,
    epoch: int | None,
    repository: str | None,
    licence: str,
    has_curve: bool,
    *,
    name: str = "this model",
    weights: str = "",
    with_code: bool = True,
    evaluations: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Text of the card.

    Parameters
    ----------
    config : of the model, as in `config.json`
    run : settings, data and versions of the training run, as in `settings.json`; None where unknown
    history : measurements of its epochs, as in `history.json`; None where unknown
    epoch : that the weights are of; None where unknown
    repository : name on the Hub; None for a folder that is not there yet
    licence : identifier of the weights' licence
    has_curve : the picture lies beside the card
    name : title where there is no repository
    weights : their number and type, in words
    with_code : the model's code lies beside the card
    evaluations : content of `evaluation.json`, by the name of what was evaluated on
    """
    best = _entry(history, epoch)
    parts = [
        _header(licence),
        f"# {repository or name}\n\n{_description(config, weights)}",
        _evaluations(evaluations or {}),
        _metrics(best, epoch),
        *([_loading(repository), _designing(repository)] if with_code else [_using(name)]),
        _data(run),
        _settings(config, run),
        _history(history, has_curve),
        _versions(run),
        _licence(licence, with_code),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(licence: str) -> str:
    lines = [
        "---",
        "library_name: transformers",
        f"license: {licence}",
        "tags:",
        *(f"- {tag}" for tag in ("protein-design", "inverse-folding", "discrete-diffusion", "biology")),
        "---",
    ]
    return "\n".join(lines)


def _description(config: Mapping[str, Any], weights: str) -> str:
    if config.get("use_discrete_diffusion"):
        decoder = (
            f"denoises the residue sequence by discrete diffusion ({config.get('diffusion_kernel')} kernel, "
            f"{config.get('num_diffusion_steps')} noise levels in training; sampling may take any number of steps)"
        )
    else:
        decoder = "predicts all residues in one pass"
    return (
        "Designs amino-acid sequences for protein backbones. An encoder reads the backbone (N, CA, C and O of every "
        f"residue; no side chains, no residue types), and a decoder {decoder}. A designed sequence is a hypothesis: "
        "predict its structure, and test it, before relying on it."
    ) + (f"\n\nTrained numbers: {weights}; computed with in float32." if weights else "")


def _evaluations(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """A column for each evaluation, a row for each figure that one of them has."""
    if not evaluations:
        return ""

    def value(document: Mapping[str, Any], path: Sequence[str]) -> Any:
        found: Any = document
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    rows = []
    for text, path, form in _EVALUATION_ROWS:
        values = [value(document, path) for document in evaluations.values()]
        if any(found is not None for found in values):
            rows.append([text, *("" if found is None else form(found) for found in values)])
    names = [name.replace("|", "\\|") for name in evaluations]
    return (
        "## Evaluation\n\nAs `python -m protein_model evaluate` measures it; the README of the package defines the "
        f"figures.\n\n{_table(['', *names], rows)}"
    )


def _metrics(entry: Mapping[str, Any] | None, epoch: int | None) -> str:
    if entry is None:
        return ""
    rows = [
        [text, f"{100 * entry[name]:.1f} %" if name.endswith("recovery") else f"{entry[name]:.4f}"]
        for name, text in _METRICS.items()
        if name in entry
    ]
    return f"## Metrics\n\nOf the weights here, which are those of epoch {epoch}.\n\n" + _table(["", ""], rows)


def _loading(repository: str | None) -> str:
    source = repository or "path/to/this/folder"
    return f"""## How to load it

PyTorch and Transformers are enough; the model's code lies beside its weights. Look at it before you trust it.

```python
from transformers import AutoModel

model = AutoModel.from_pretrained("{source}", trust_remote_code=True)
```

With the `protein_model` package: `ProteinModel.from_pretrained("{source}")`, from `protein_model.model.modeling`."""


def _designing(repository: str | None) -> str:
    source = repository or "path/to/this/folder"
    fetch = f"hf download {repository} --local-dir model\n" if repository else ""
    model = "model" if repository else source
    return f"""## How to design

With the `protein_model` package, which reads PDB and mmCIF files, several chains and gaps, and writes FASTA files:

```bash
{fetch}python -m protein_model design --model {model} --pdb_path backbone.pdb --out_dir designs
```

Without it, for one chain of a PDB file:

```python
import torch
from transformers import AutoModel

model = AutoModel.from_pretrained("{source}", trust_remote_code=True).eval()
residues = {{}}
for line in open("backbone.pdb"):
    atom, alternative, chain, number = line[12:16].strip(), line[16:17], line[21:22], line[22:27]
    if line.startswith("ATOM") and atom in ("N", "CA", "C", "O") and alternative in " A" and chain == "A":
        residues.setdefault(number, {{}})[atom] = [float(line[start : start + 8]) for start in (30, 38, 46)]
residues = {{number: atoms for number, atoms in residues.items() if len(atoms) == 4}}
backbone = torch.tensor([[atoms[name] for name in ("N", "CA", "C", "O")] for atoms in residues.values()])
position = []  # author numbers, so that missing residues leave a gap; inserted residues push the later ones on
for number in residues:
    position.append(max(int(number[:4]), position[-1] + 1) if position else int(number[:4]))
length = len(backbone)
one_chain = torch.zeros(length, dtype=torch.long)
temperature, steps = 0.1, 32 if model.config.use_discrete_diffusion else 1
with torch.no_grad():
    encoded = model.encode(
        backbone, torch.ones(length, dtype=torch.bool), one_chain, one_chain, torch.tensor(position)
    )
    times = torch.linspace(model.diffusion.num_steps, 0, steps + 1, dtype=torch.float64)
    retained = model.diffusion.alpha_bar(times).tolist()
    tokens = torch.full((length,), 20)
    for now, next_one in zip(retained, retained[1:]):
        logits = model.decode(encoded, tokens, torch.tensor([1.0 - now]))
        probabilities = (logits.float() / temperature).softmax(-1)
        tokens = torch.multinomial(model.diffusion.posterior(tokens, probabilities, now, next_one), 1)[:, 0]
print("".join(model.config.residue_letters[token] for token in tokens))
```"""


def _using(name: str) -> str:
    return f"""## How to use it

With the `protein_model` package, which has its code; where the package ships it, by its name, `{name}`:

```bash
python -m protein_model design --model {name} --pdb_path backbone.pdb --out_dir designs
python train_accelerate.py --start_from {name} --pdb_path my_structures
```

```python
from protein_model import load_model

model = load_model("{name}")
```

Anywhere else the path of this folder takes the place of the name."""


def _data(run: Mapping[str, Any] | None) -> str:
    if run is None:
        return ""
    settings, data = run["settings"], run["data"]
    source = settings.get("pdb_path")
    if settings.get("use_predefined_split"):
        split = "predefined" + (
            f", from `{PurePath(settings['split_file']).name}`" if settings.get("split_file") else ""
        )
    elif settings.get("cluster_file"):
        split = f"by the sequence clusters of `{PurePath(settings['cluster_file']).name}`"
    else:
        split = "by sequence cluster"
    rows = [
        ["structures", f"`{Path(source).name}`" if source else "the examples that the package embeds"],
        ["one entry is", f"a {settings.get('unit', 'chain')}"],
        ["training / validation", f"{data['training_structures']:,} / {data['validation_structures']:,}"],
        ["split", split],
        ["fingerprint of the files", f"`{data['fingerprint']}`"],
    ]
    return "## Data\n\n" + _table(["", ""], rows)


def _settings(config: Mapping[str, Any], run: Mapping[str, Any] | None) -> str:
    settings = dict(run["settings"]) if run is not None else dict(config)
    rows = []
    for name, value in settings.items():
        if name in _NOT_SHOWN or isinstance(value, (dict, list)) or value is None:
            continue
        rows.append([f"`{name}`", f"`{_without_place(value)}`"])
    if run is not None:
        rows += [
            ["micro-batches per optimizer step", str(run["shards"])],
            ["processes", str(run["processes"])],
            ["precision", str(run["mixed_precision"])],
            ["optimizer steps per epoch", f"{run['data']['steps_per_epoch']:,}"],
        ]
    return "## Settings\n\n" + _table(["setting", "value"], rows)


def _without_place(value: Any) -> Any:
    """Folders and stores of the training machine are nobody's business."""
    if not isinstance(value, str):
        return value
    path = PurePath(value)
    is_place = path.is_absolute() or is_address(value) or len(path.parts) > 2  # organisation/name is no place
    return path.name if is_place else value


def _history(history: Mapping[str, Any] | None, has_curve: bool) -> str:
    epochs: Sequence[Mapping[str, Any]] = history["epochs"] if history is not None else []
    if not epochs:
        return ""
    # First and last epoch, and as many in between as a reader takes in.
    step = max(1, math.ceil((len(epochs) - 1) / (HISTORY_ROWS - 1)))
    chosen = [*epochs[:-1:step], epochs[-1]]
    rows = [
        [
            f"{entry['epoch']:.0f}",
            f"{entry['step']:,.0f}",
            f"{entry['train_loss']:.4f}",
            f"{entry['validation_loss']:.4f}",
            f"{100 * entry['one_shot_recovery']:.1f} %",
            f"{entry['learning_rate']:.2e}",
        ]
        for entry in chosen
    ]
    picture = "\n\n![losses over the epochs](loss_curve.png)" if has_curve else ""
    seconds = sum(entry.get("seconds", 0.0) for entry in epochs)
    header = ["epoch", "step", "training loss", "validation loss", "one-shot recovery", "learning rate"]
    return (
        f"## History\n\n{counted(len(epochs), 'epoch')}, {seconds / 3600:.2f} hours of training."
        f"{picture}\n\n{_table(header, rows)}"
    )


def _versions(run: Mapping[str, Any] | None) -> str:
    if run is None:
        return ""
    return "## Versions\n\n" + _table(["package", "version"], [[name, str(v)] for name, v in run["versions"].items()])


def _licence(licence: str, with_code: bool) -> str:
    code = " Code in this repository (`*.py`): MIT, see `LICENSE`." if with_code else ""
    return (
        f"## Licence\n\nWeights: `{licence}`.{code} The structures that the model was trained on have their own terms."
    )


def _entry(history: Mapping[str, Any] | None, epoch: int | None) -> Mapping[str, Any] | None:
    if history is None:
        return None
    return next((entry for entry in history["epochs"] if entry["epoch"] == epoch), None)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
