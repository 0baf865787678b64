"""Where options come from, and which are refused."""

import json

import pytest
import yaml

from protein_model.training.arguments import (
    DEMO_CONFIG,
    NOT_ADOPTED,
    PRESETS,
    Settings,
    SettingsError,
    parse_options,
    read_config_file,
)


def test_command_line_wins_over_file_over_checkpoint_over_default(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("epochs: 7\nhidden_dim: 32\nuse_discrete_diffusion: true\n")
    given = parse_options(["--config", str(config), "--pdb_path", "data", "--epochs", "9"])
    settings = given.resolve({"hidden_dim": 99, "dropout": 0.3, "seed": 5, "save_dir": "elsewhere"})
    assert (settings.epochs, settings.hidden_dim, settings.dropout, settings.seed) == (9, 32, 0.3, 5)
    assert settings.use_discrete_diffusion
    assert settings.num_neighbors == Settings.num_neighbors
    assert settings.save_dir is None


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_settings_survive_a_file(tmp_path, ending):
    settings = Settings(pdb_path="data", epochs=3, warmup_epochs=0.5, keep_last=4, use_discrete_diffusion=True)
    values = {name: value for name, value in settings.to_dict().items() if name != "config"}
    path = tmp_path / f"run.{ending}"
    path.write_text(json.dumps(values) if ending == "json" else yaml.safe_dump(values))
    assert Settings(**read_config_file(path)) == settings


def test_no_arguments_is_the_demonstration():
    demo = read_config_file(DEMO_CONFIG)
    settings = parse_options([]).resolve()
    assert settings.pdb_path is None and settings.hidden_dim == PRESETS["tiny"]["hidden_dim"]
    assert {name: getattr(settings, name) for name in demo} == demo
    assert parse_options(["--epochs", "2"]).resolve().epochs == 2
    assert parse_options(["--pdb_path", "x"]).resolve().hidden_dim == Settings.hidden_dim


def test_a_preset_gives_way_to_what_is_given_and_wins_over_a_checkpoint():
    given = parse_options(["--pdb_path", "x", "--preset", "large", "--num_neighbors", "30"])
    for settings in (given.resolve(), given.resolve({"preset": "tiny", "hidden_dim": 64, "num_neighbors": 16})):
        assert (settings.hidden_dim, settings.num_encoder_layers, settings.num_neighbors) == (256, 8, 30)
    saved = {"preset": "tiny", "hidden_dim": 99}
    assert parse_options(["--resume", "x"]).resolve(saved).hidden_dim == 99
    base = {name: getattr(Settings, name) for name in PRESETS["base"]}
    assert base == PRESETS["base"]


def test_resume_is_short_for_resume_from():
    assert parse_options(["--resume", "latest"]).values == {"resume_from": "latest"}


def test_a_resumed_run_keeps_its_batches_unless_one_limit_is_given():
    saved = {"batch_size": None, "batch_residues": 500}
    assert parse_options(["--resume", "x"]).resolve(saved).batch_residues == 500
    changed = parse_options(["--resume", "x", "--batch_size", "4"]).resolve(saved)
    assert (changed.batch_size, changed.batch_residues) == (4, None)


def test_launch_options_are_not_taken_from_a_checkpoint():
    saved = {name: "nonsense" for name in NOT_ADOPTED}
    assert parse_options(["--resume", "x"]).resolve(saved).num_workers == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.5}, "--dropout must be from 0 to 1, but is 1.5"),
        ({"epochs": 0}, "--epochs must be at least 1, but is 0"),
        ({"learning_rate": 0.0}, "--learning_rate must be above 0"),
        ({"split_file": "x"}, "--split_file goes with --use_predefined_split"),
        ({"cluster_file": "x", "use_predefined_split": True}, "exclude each other"),
        ({"keep_last": 1}, "--keep_last must be at least 2"),
        ({"keep_every": 5}, "--keep_every goes with --keep_last"),
        ({"early_stopping_min_delta": 0.1}, "goes with --early_stopping_patience"),
        ({"compile": True, "batch_size": 8}, "--compile needs batches of one size: give --batch_residues"),
        ({"compile": True, "deterministic": True}, "--compile and --deterministic exclude each other"),
        ({"fused_layers": True, "compile": True}, "--fused_layers and --compile exclude each other"),
        ({"fused_layers": True, "gradient_checkpointing": True}, "leave out --gradient_checkpointing"),
        ({"fused_layers": True, "hidden_dim": 192}, "works for --hidden_dim 128 at most, but it is 192"),
        ({"push_to_hub": True}, "--push_to_hub needs --hub_model_id"),
        ({"hub_model_id": "lab/model"}, "--hub_model_id goes with --push_to_hub"),
    ],
)
def test_bad_values_and_combinations_are_refused_in_words(options, message):
    with pytest.raises(SettingsError, match=message):
        Settings(**options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epoch: 3", "unknown option epoch"),
        ("epochs: many", "value of the wrong type"),
        ("- 3", "must be a list of options"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_bad_files_are_refused_in_words(tmp_path, content, message):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(SettingsError, match=message):
        parse_options(["--config", str(path)])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"gone\.yaml: cannot be read"):
        parse_options(["--config", str(tmp_path / "gone.yaml")])
