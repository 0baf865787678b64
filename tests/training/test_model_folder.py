"""What is published of a model: complete, loads without this package, tells what it is and nothing of the machine."""

import json
import os
import re
import shutil
import subprocess
import sys

import gemmi
import pytest
import torch
import yaml

from protein_model.model.modeling import ProteinModel
from protein_model.structures import read_structure
from protein_model.training.arguments import EXAMPLES
from protein_model.training.checkpoints import DamagedCheckpoint
from protein_model.training.model_card import HISTORY_ROWS, model_card
from protein_model.training.model_folder import NotAModelFolder, write_model_folder

# Predicts a sequence from the backbone alone, with nothing but Transformers.
PREDICT = """
import sys
import torch
from transformers import AutoConfig, AutoModel
try:
    import protein_model
    sys.exit("this process can import the package, so it proves nothing")
except ImportError:
    pass
folder, inputs, outputs = sys.argv[1:]
assert AutoConfig.from_pretrained(folder, trust_remote_code=True).model_type == "protein_model"
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
with torch.no_grad():
    torch.save(model(**torch.load(inputs)).logits, outputs)
"""


@pytest.fixture
def folder(trained_run, tmp_path):
    write_model_folder(trained_run / "best_model", tmp_path / "folder", "lab/tiny", "cc-by-4.0")
    return tmp_path / "folder"


def run_isolated(script: str, *arguments: str, cwd, timeout: float = 120) -> str:
    """Run a script in a process that sees installed packages only, without network and with an empty Hub cache."""
    (cwd / "script.py").write_text(script)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    environment |= {"HF_HOME": str(cwd / "hf_home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-I", "script.py", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def example_inputs() -> dict[str, torch.Tensor]:
    structure = read_structure(EXAMPLES / "1orc.pdb.gz")
    length = len(structure)
    return {
        "backbone": torch.from_numpy(structure.coordinates[:, :4]).float(),
        "backbone_mask": torch.from_numpy(structure.backbone_complete),
        "structure_index": torch.zeros(length, dtype=torch.int64),
        "chain_index": torch.from_numpy(structure.chain_index).long(),
        "position": torch.from_numpy(structure.position).long(),
        "tokens": torch.full((length,), 20),
        "noise_level": torch.ones(1),
    }


def predicted_without_this_package(folder, inputs: dict[str, torch.Tensor], tmp_path) -> torch.Tensor:
    """Logits of the model in a folder, loaded by its own code in a process of its own."""
    isolated = tmp_path / "isolated"
    isolated.mkdir()
    torch.save(inputs, isolated / "inputs.pt")
    run_isolated(PREDICT, str(folder), "inputs.pt", "outputs.pt", cwd=isolated)
    return torch.load(isolated / "outputs.pt")


def test_it_loads_without_this_package_and_predicts_the_same(folder, trained_run, tmp_path):
    inputs = example_inputs()
    found = predicted_without_this_package(folder, inputs, tmp_path)
    with torch.no_grad():
        for source in (folder, trained_run / "best_model"):
            assert torch.equal(found, ProteinModel.from_pretrained(source).eval()(**inputs).logits)


def test_the_best_model_itself_has_the_code_to_load_it(folder, trained_run):
    for path in folder.glob("*.py"):
        assert (trained_run / "best_model" / path.name).read_bytes() == path.read_bytes()
    config = json.loads((trained_run / "best_model" / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling.ProteinModel"


def test_the_program_in_the_card_designs_a_sequence(folder, tmp_path):
    """The second code block, run as a reader would paste it."""
    isolated = tmp_path / "isolated"
    isolated.mkdir()
    structure = gemmi.read_structure(str(EXAMPLES / "1orc.pdb.gz"))
    structure.write_pdb(str(isolated / "backbone.pdb"))
    loading, designing = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert '"lab/tiny"' in loading
    output = run_isolated(designing.replace("lab/tiny", str(folder)), cwd=isolated)
    native = read_structure(EXAMPLES / "1orc.pdb.gz")
    assert re.fullmatch("[ACDEFGHIKLMNPQRSTVWY]+", output.strip())
    assert len(output.strip()) == len(native)


def test_the_card_tells_data_settings_history_metrics_versions_and_licence(folder, trained_run):
    text = (folder / "README.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["license"] == "cc-by-4.0" and header["library_name"] == "transformers"
    history = json.loads((trained_run / "history.json").read_text())
    run = json.loads((trained_run / "best_model" / "settings.json").read_text())
    best = history["best"]
    assert f"| validation loss, nats per scored residue | {best['loss']:.4f} |" in text
    assert f"those of epoch {best['epoch']}." in text
    assert f"`{run['data']['fingerprint']}`" in text
    assert f"{run['data']['training_structures']} / {run['data']['validation_structures']}" in text
    assert "| `hidden_dim` | `16` |" in text
    assert f"| torch | {torch.__version__} |" in text
    assert "2 epochs, " in text and "![losses over the epochs](loss_curve.png)" in text
    assert "ProteinModel.from_pretrained" in text and "python -m protein_model design" in text
    assert (folder / "LICENSE").read_text().startswith("MIT License")
    assert (folder / "loss_curve.png").stat().st_size > 1000


def test_nothing_published_tells_where_it_was_trained(folder, trained_run, structures):
    for path in folder.iterdir():
        content = path.read_bytes()
        for private in (trained_run, structures.parent):
            assert str(private).encode() not in content, path.name
    assert not (folder / "settings.json").exists()


def test_the_card_has_names_of_places_and_not_the_places(trained_run):
    run = json.loads((trained_run / "best_model" / "settings.json").read_text())
    run["settings"] |= {
        "pdb_path": "s3://secret-bucket/private/cache",
        "mirror_checkpoints_to": "s3://secret-bucket/run",
        "cluster_file": "/secret-home/clusters.tsv",
        "start_from": "../secret-folder/run/best_model",
    }
    text = model_card({}, run, None, None, None, "mit", False)
    assert "secret" not in text
    for name in ("`cache`", "`clusters.tsv`", "`best_model`"):
        assert name in text
    run["settings"]["start_from"] = "lab/tiny"
    assert "| `start_from` | `lab/tiny` |" in model_card({}, run, None, None, None, "mit", False)


def test_a_long_history_is_a_short_table():
    epochs = [
        {
            **{"epoch": n, "step": 10 * n, "train_loss": 3.0 / n, "validation_loss": 3.1 / n},
            **{"one_shot_recovery": 0.3, "learning_rate": 1e-3, "seconds": 36.0},
        }
        for n in range(1, 3001)
    ]
    text = model_card({}, None, {"epochs": epochs}, 3000, None, "mit", False)
    rows = [line for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) <= HISTORY_ROWS + 1
    assert rows[0].startswith("| 1 |") and rows[-1].startswith("| 3000 |")
    assert "3,000 epochs, 30.00 hours" in text
    assert "\n1 epoch, 0.01 hours" in model_card({}, None, {"epochs": epochs[:1]}, 1, None, "mit", False)


def test_a_folder_without_training_files_gets_a_card_with_what_is_known(trained_run, tmp_path):
    ProteinModel.from_pretrained(trained_run / "best_model").save_pretrained(tmp_path / "plain" / "model")
    write_model_folder(tmp_path / "plain" / "model", tmp_path / "folder", None, "mit")
    text = (tmp_path / "folder" / "README.md").read_text()
    assert "## Settings" in text and "| `hidden_dim` | `16` |" in text
    assert "## Metrics" not in text and "## Data" not in text and "## History" not in text


def test_a_folder_that_is_no_model_is_refused_by_name(tmp_path):
    with pytest.raises(NotAModelFolder, match=r"nowhere: has no config.json"):
        write_model_folder(tmp_path / "nowhere", tmp_path / "folder", None, "mit")


def test_weights_that_do_not_match_their_checksum_leave_the_folder_as_it_was(trained_run, folder, tmp_path):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.copytree(trained_run / "best_model", tmp_path / "best_model")
    with (tmp_path / "best_model" / "model.safetensors").open("r+b") as handle:
        handle.seek(-1, os.SEEK_END)
        last = handle.read(1)
        handle.seek(-1, os.SEEK_END)
        handle.write(bytes([last[0] ^ 1]))
    with pytest.raises(DamagedCheckpoint, match="does not match its checksum"):
        write_model_folder(tmp_path / "best_model", folder, None, "mit")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
