"""What a setting of training is worth: variants of one run, each trained for the same time, one change at a time.

    python tests/benchmarks/recipe.py --seconds 300 --change num_neighbors=48 --change learning_rate=4e-3,hidden_dim=96
        --pdb_path CACHE --use_predefined_split --use_discrete_diffusion [any options of train_accelerate.py]

Options that are not named by `--change` are those of all variants; the first variant has no change. The data, the
corruption, the step and the validation are those of training. The learning rate warms up for a twentieth of the time
and then follows a cosine down to zero at its end, by the clock instead of by the step, so that a variant with dearer
steps takes fewer of them. The clock is processor time on a CPU, and does not run during validation.

Prints a table: steps taken, milliseconds per step, and the validation figures of the averaged weights. A difference
means something only where it is clearly larger than that between two values of `--seed`, which may be a variant too.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm import tqdm

from protein_model.model.modeling import ProteinModel, parameter_count
from protein_model.processor import flush_denormals, keep_memory
from protein_model.training.arguments import Settings, parse_options
from protein_model.training.averaging import WeightAverage
from protein_model.training.preparation import TrainingData, build_optimizer, model_configuration, prepare_data
from protein_model.training.schedule import Schedule
from protein_model.training.stepping import OptimizerSteps
from protein_model.training.validation import validate

WARMUP_SHARE = 0.05


def train(accelerator: Accelerator, settings: Settings, data: TrainingData, seconds: float) -> list[str]:
    """Train one variant for so long. Returns the cells of its row."""
    set_seed(settings.seed)
    network = ProteinModel(model_configuration(settings))
    optimizer = build_optimizer(network, settings.weight_decay, accelerator.device)
    model, prepared = accelerator.prepare(network, optimizer)
    average = WeightAverage(network, settings.ema_decay)
    nominal = float(data.plan.lengths.sum()) / data.plan.steps_per_epoch
    steps = OptimizerSteps(accelerator, model, prepared, average, settings, 1, nominal)
    # That of training, counted in milliseconds instead of steps.
    schedule = Schedule(settings.learning_rate, round(1000 * WARMUP_SHARE * seconds), round(1000 * seconds))
    on_cpu = accelerator.device.type == "cpu"

    def now() -> float:
        if on_cpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    train_loader = accelerator.prepare_data_loader(data.train_loader)
    spent, step, epoch = 0.0, 0, 0
    bar = tqdm(total=round(seconds), unit="s", leave=False, mininterval=5, disable=None)
    model.train()
    while spent < seconds:
        data.sampler.seek(epoch)
        start = now()
        for batch in train_loader:
            steps.accumulate(batch, step, 0)
            steps.update(schedule.rate(round(1000 * spent)), stop_requested=False)
            step += 1
            bar.update(round(min(now() - start + spent, seconds)) - bar.n)
            spent, start = spent + now() - start, now()
            if spent >= seconds:
                break
        epoch += 1
    bar.close()
    with average.applied():
        loader = accelerator.prepare_data_loader(data.validation_loader)
        result = validate(accelerator, network, loader, settings.seed, settings.fully_masked_fraction)
    assert result is not None
    return [
        f"{step:,}",
        f"{1000 * spent / step:,.0f}",
        f"{parameter_count(network):,}",
        f"{result.loss:.4f}",
        f"{result.one_shot_perplexity:.3f}",
        f"{100 * result.one_shot_recovery:.2f} %",
    ]


def main() -> None:
    """Train all variants and print their table."""
    keep_memory()
    flush_denormals()
    parser = argparse.ArgumentParser(description="Compare settings of training at equal time.", allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=300, help="of training for each variant [300]")
    parser.add_argument(
        "--change", action="append", default=[], metavar="NAME=VALUE,...", help="one variant; may be given repeatedly"
    )
    options, for_training = parser.parse_known_args()
    accelerator = Accelerator()
    print("| variant | steps | ms per step | parameters | validation loss, nats | one-shot perplexity | recovery |")
    print("|---|---|---|---|---|---|---|")
    for change in ["", *options.change]:
        changed = [
            word for pair in change.split(",") if pair for word in ("--" + pair.split("=")[0], pair.split("=")[1])
        ]
        given = parse_options([*for_training, *changed])
        settings = Settings(**given.values)
        data = prepare_data(settings, 1, 0, 1, None, lambda: False)
        row = train(accelerator, settings, data, options.seconds)
        print("| " + " | ".join([change.replace(",", ", ") or "as given", *row]) + " |", flush=True)


if __name__ == "__main__":
    main()
