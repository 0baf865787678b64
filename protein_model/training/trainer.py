"""The training run: resume, epochs of optimizer steps, validation, checkpoints.

Order of events, once around: find the checkpoint to go on from -> complete the options -> build data and model ->
compare with the checkpoint -> load it -> epochs -> best model. What a checkpoint is on disk is left to `checkpoints`,
the order of the data to `data.batching`, the loss to `model.modeling`.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import safetensors
import torch
import transformers
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, broadcast_object_list
from transformers.utils.logging import disable_progress_bar

from .. import __version__
from ..data.batching import shards_per_process
from ..data.collate import FlatBatch, model_inputs
from ..model.configuration import ProteinModelConfig
from ..model.decoder import NUM_RESIDUE_TYPES
from ..model.modeling import ProteinModel, parameter_count, sequence_loss
from ..randomness import derived_seed
from . import compatibility
from .arguments import GivenOptions
from .averaging import WeightAverage
from .checkpoints import (
    BEST_MODEL,
    STATE_FOLDER,
    CheckpointError,
    CheckpointStore,
    ResumePoint,
    locate,
    save_folder,
    write_file_atomically,
)
from .curves import draw_loss_curve
from .preparation import TrainingData, build_optimizer, model_configuration, prepare_data
from .progress import BestValidation, LossHistory, TrainingProgress
from .reporting import Console, EpochProgress
from .schedule import Schedule
from .validation import ValidationResult, validate

SETTINGS_FILE = "settings.json"
HISTORY_FILE = "history.json"
LOSS_CURVE_FILE = "loss_curve.png"
_NON_AVERAGING = (DistributedType.NO,)
_SUMS = ("nll", "correct", "scored", "residues")


@dataclass(frozen=True)
class SavedRun:
    """What a checkpoint says of the run that wrote it, read before anything is loaded.

    Attributes
    ----------
    point : the checkpoint and how it was found
    settings : options of that run
    data : fingerprint and sizes of its data
    shards : micro-batches per optimizer step
    config : of its model
    """

    point: ResumePoint
    settings: dict[str, Any]
    data: dict[str, Any]
    shards: int
    config: dict[str, Any]


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes
    ----------
    best_model : folder of the model with the lowest validation loss
    best_loss : that loss, nats per scored residue
    best_epoch : epoch that reached it
    data : what it was trained and validated on
    """

    best_model: Path
    best_loss: float
    best_epoch: int
    data: TrainingData


class Trainer:
    """One training run.

    Parameters
    ----------
    given : options of this launch

    Raises
    ------
    SettingsError, CheckpointError, BatchingError, ... : this launch cannot work; nothing was changed on disk but caches
    """

    def __init__(self, given: GivenOptions):
        disable_progress_bar()  # the library's own, one for each file that it reads or writes
        self.accelerator = _accelerator(given)
        self.console = Console(self.accelerator.is_main_process)
        saved = self._find_checkpoint(given)
        self.settings = settings = given.resolve(saved.settings if saved else None)
        self.save_dir = save_folder(given.values.get("resume_from"), given.values.get("save_dir"))
        self.store = CheckpointStore(self.save_dir)
        self.shards, self.micro_steps = self._cut_steps(saved)
        self.data = prepare_data(
            settings, self.shards, self.accelerator.num_processes, show_progress=self.accelerator.is_main_process
        )
        config = model_configuration(settings)
        if saved is not None:
            self._compare(saved, config)

        torch.manual_seed(derived_seed(settings.seed, "weights"))
        network = ProteinModel(config)
        optimizer = build_optimizer(network, settings.weight_decay, self.accelerator.device)
        self.model, self.optimizer, self.train_loader, self.validation_loader = self.accelerator.prepare(
            network, optimizer, self.data.train_loader, self.data.validation_loader
        )
        self.network: ProteinModel = self.accelerator.unwrap_model(self.model)
        self.parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]

        self.progress = TrainingProgress(self.data.plan.steps_per_epoch, self.shards, settings.seed)
        self.history = LossHistory()
        self.best = BestValidation()
        self.average = WeightAverage(self.network, settings.ema_decay)
        self.registered = {
            "progress": self.progress,
            "loss_history": self.history,
            "best_validation": self.best,
            "weight_average": self.average,
        }
        self.accelerator.register_for_checkpointing(*self.registered.values())
        # Weights are saved under their own names, not under those of a wrapper that another launch may not have.
        self.accelerator.register_save_state_pre_hook(self._unwrap_weights)
        self.accelerator.register_load_state_pre_hook(self._unwrap_models)
        self.schedule = Schedule(
            settings.learning_rate,
            round(settings.warmup_epochs * self.data.plan.steps_per_epoch),
            settings.epochs * self.data.plan.steps_per_epoch,
        )
        # Losses are divided by a typical batch before the backward pass, so that 16-bit gradients stay in range, and
        # brought to the exact mean over the global batch afterwards.
        self._nominal_residues = float(self.data.plan.lengths.sum()) / (self.shards * self.data.plan.steps_per_epoch)
        self._step_sums = torch.zeros(len(_SUMS), dtype=torch.float64, device=self.accelerator.device)
        self._epoch_sums = torch.zeros_like(self._step_sums)
        self._epoch_started = time.monotonic()

        if saved is not None:
            self._load(saved)
        elif self.accelerator.is_main_process:
            self._begin_save_dir()
        self._describe()

    # ------------------------------------------------------------------ the run

    def fit(self) -> TrainingResult:
        """Train to the last epoch, or until early stopping."""
        settings = self.settings
        if self.progress.epoch >= settings.epochs:
            self.console.say(
                f"Nothing to do: {self.progress.epoch} of {settings.epochs} epochs are done; a higher --epochs goes on."
            )
        while self.progress.epoch < settings.epochs and not self._out_of_patience():
            self._train_epoch()
            result = self._validate()
            improved = self._record(result)
            epoch = self.progress.epoch
            if improved:
                self._save(BEST_MODEL)
            if epoch % settings.save_every == 0 or epoch == settings.epochs or self._out_of_patience():
                self._save(f"checkpoint_epoch_{epoch}")
        if self._out_of_patience():
            self.console.say(
                f"Stopped early: no improvement for {self.best.epochs_without_improvement} epochs "
                f"(--early_stopping_patience {settings.early_stopping_patience})."
            )
        self.console.say(
            f"Best validation loss {self.best.loss:.4f} nats/residue at epoch {self.best.epoch}: "
            f"{self.save_dir / BEST_MODEL}"
        )
        self.accelerator.wait_for_everyone()
        return TrainingResult(self.save_dir / BEST_MODEL, self.best.loss, self.best.epoch, self.data)

    def _train_epoch(self) -> None:
        """The steps of the current epoch that are not done yet."""
        progress, settings = self.progress, self.settings
        first = progress.step_in_epoch
        if first == 0:
            progress.start_epoch()
        self._restart_sums()
        self.data.sampler.seek(progress.epoch, first)
        bar = EpochProgress(self.console, progress.epoch + 1, settings.epochs, first, progress.steps_per_epoch)
        self.model.train()
        # The loader ends with the epoch, and the last step below makes `progress` point to the next one.
        for index, batch in enumerate(self.train_loader):
            micro_step = index % self.micro_steps
            self._accumulate(batch, micro_step)
            if micro_step < self.micro_steps - 1:
                continue
            rate = self._update_weights()
            if bar.advance():
                sums = self._collect_sums()
                bar.show(sums["nll"] / max(sums["scored"], 1), rate, sums["residues"] / max(sums["seconds"], 1e-9))
            due = settings.save_every_steps is not None and progress.step % settings.save_every_steps == 0
            if due and progress.step_in_epoch > 0:
                self._save(f"checkpoint_step_{progress.step}")
        bar.close()
        progress.epoch_sums = self._collect_sums()

    def _accumulate(self, batch: FlatBatch, micro_step: int) -> None:
        """Forward and backward pass of one micro-batch."""
        device, settings = self.accelerator.device, self.settings
        shard = self.accelerator.process_index + micro_step * self.accelerator.num_processes
        step = self.progress.step
        generator = torch.Generator(device).manual_seed(derived_seed(settings.seed, "corruption", step, shard))
        torch.manual_seed(derived_seed(settings.seed, "dropout", step, shard))

        labels, usable = batch["residue_type"], batch["backbone_mask"]
        diffusion = self.network.diffusion
        times = diffusion.sample_times(len(batch["row"]), settings.fully_masked_fraction, generator)
        tokens, corrupted = diffusion.corrupt(labels, times, batch["structure_index"], generator)
        tokens = torch.where(usable, tokens, NUM_RESIDUE_TYPES)
        inputs: dict[str, Any] = model_inputs(batch)
        if settings.backbone_noise:
            noise = torch.randn(batch["backbone"].shape, generator=generator, device=device)
            inputs["backbone"] = batch["backbone"] + settings.backbone_noise * noise

        last = micro_step == self.micro_steps - 1
        with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
            output = self.model(**inputs, tokens=tokens, noise_level=diffusion.noise_level(times))
            sums = sequence_loss(output.logits, labels, corrupted & usable, settings.label_smoothing)
            self.accelerator.backward(sums.objective / self._nominal_residues)
        residues = torch.tensor(float(len(labels)), device=device)
        self._step_sums += torch.stack([sums.nll.detach(), sums.correct, sums.count, residues]).double()

    def _update_weights(self) -> float:
        """One optimizer step on the mean loss over all scored residues of the global batch. Returns the rate."""
        totals = self.accelerator.reduce(self._step_sums, "sum")
        averaged_over = 1 if self.accelerator.distributed_type in _NON_AVERAGING else self.accelerator.num_processes
        self.accelerator.unscale_gradients(self.optimizer)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        scored = totals[_SUMS.index("scored")].clamp(min=1)
        torch._foreach_mul_(gradients, (averaged_over * self._nominal_residues / scored).float())
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        rate = self.schedule.rate(self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update()
        self.progress.step += 1
        self._epoch_sums += totals
        self._step_sums.zero_()
        return rate

    def _validate(self) -> ValidationResult:
        with self.average.applied():
            return validate(
                self.accelerator,
                self.network,
                self.validation_loader,
                self.settings.seed,
                self.settings.fully_masked_fraction,
            )

    def _record(self, result: ValidationResult) -> bool:
        """Write the finished epoch into history, files and console. True if it is the best so far."""
        sums, epoch = self.progress.epoch_sums, self.progress.epoch
        scored = max(sums["scored"], 1.0)
        entry = {
            "epoch": epoch,
            "step": self.progress.step,
            "train_loss": sums["nll"] / scored,
            "train_recovery": sums["correct"] / scored,
            "validation_loss": result.loss,
            "one_shot_perplexity": result.one_shot_perplexity,
            "one_shot_recovery": result.one_shot_recovery,
            "learning_rate": self.schedule.rate(self.progress.step - 1),
            "seconds": sums["seconds"],
            "residues_per_second": sums["residues"] / max(sums["seconds"], 1e-9),
        }
        self.history.epochs.append(entry)
        improved = self.best.update(result.loss, epoch, self.settings.early_stopping_min_delta)
        self.progress.start_epoch()
        if self.accelerator.is_main_process:
            self._write_history()
        self.console.say(
            f"epoch {epoch}/{self.settings.epochs}  train loss {entry['train_loss']:.4f}  "
            f"validation loss {result.loss:.4f} nats/residue{' (best)' if improved else ''}  "
            f"one-shot perplexity {result.one_shot_perplexity:.2f}  recovery {100 * result.one_shot_recovery:.1f} %  "
            f"{entry['residues_per_second']:,.0f} residues/s"
        )
        return improved

    def _out_of_patience(self) -> bool:
        patience = self.settings.early_stopping_patience
        return patience is not None and self.best.epochs_without_improvement >= patience

    # ------------------------------------------------------------------ sums of an epoch

    def _restart_sums(self) -> None:
        """Continue the sums where the unfinished epoch was saved."""
        sums = self.progress.epoch_sums
        self._epoch_sums = torch.tensor([sums[name] for name in _SUMS], dtype=torch.float64).to(self.accelerator.device)
        self._epoch_started = time.monotonic() - sums["seconds"]

    def _collect_sums(self) -> dict[str, float]:
        """The sums so far; waits for the device."""
        sums = dict(zip(_SUMS, self._epoch_sums.tolist(), strict=True))
        return {**sums, "seconds": time.monotonic() - self._epoch_started}

    # ------------------------------------------------------------------ saving

    def _save(self, name: str) -> None:
        """Commit a checkpoint; a failure is reported, and training goes on."""
        accelerator = self.accelerator
        if self.progress.step_in_epoch:
            self.progress.epoch_sums = self._collect_sums()
        failure = None
        temporary = self.store.begin(name) if accelerator.is_main_process else self.store.temporary(name)
        accelerator.wait_for_everyone()
        try:
            accelerator.save_state(str(temporary / STATE_FOLDER))
            # Nothing random depends on generator states here, and their files differ from process to process.
            for path in (temporary / STATE_FOLDER).glob(f"random_states_{accelerator.process_index}.pkl"):
                path.unlink()
        except (OSError, RuntimeError, safetensors.SafetensorError) as error:
            failure = error
        accelerator.wait_for_everyone()
        if not accelerator.is_main_process:
            return
        try:
            if failure is not None:
                raise failure
            with self.average.applied():
                self.network.save_pretrained(temporary)
            (temporary / SETTINGS_FILE).write_text(json.dumps(self._run_description(), indent=1), encoding="utf-8")
            final = self.store.commit(
                temporary, self.progress.step, self.progress.epoch, list(self.registered), package_versions()
            )
            if name != BEST_MODEL:
                self.store.prune(self.settings.keep_last, self.settings.keep_every)
                self.console.say(f"saved {final}")
        except (OSError, RuntimeError, safetensors.SafetensorError) as error:
            self.store.abandon(temporary)
            self.console.say(
                f"WARNING: {self.save_dir / name} could not be saved ({error}); earlier checkpoints are untouched, and "
                "training goes on to the next save"
            )

    def _write_history(self) -> None:
        self.save_dir.mkdir(parents=True, exist_ok=True)
        document = {"best": self.best.state_dict(), **self.history.state_dict()}
        write_file_atomically(self.save_dir / HISTORY_FILE, json.dumps(document, indent=1))
        draw_loss_curve(self.save_dir / LOSS_CURVE_FILE, self.history, self.best)

    def _run_description(self) -> dict[str, Any]:
        split = self.data.split
        settings = self.settings.to_dict()
        settings["save_dir"] = str(self.save_dir)
        # The run may be resumed from another working folder.
        for name in ("pdb_path", "cache_dir", "split_file", "cluster_file", "save_dir"):
            if settings[name] is not None:
                settings[name] = str(Path(settings[name]).resolve())
        return {
            "settings": settings,
            "data": {
                "fingerprint": self.data.cache.fingerprint,
                "training_structures": len(split.train),
                "validation_structures": len(split.validation),
                "steps_per_epoch": self.data.plan.steps_per_epoch,
            },
            "shards": self.shards,
            "processes": self.accelerator.num_processes,
            "mixed_precision": self.accelerator.mixed_precision,
            "versions": package_versions(),
        }

    def _begin_save_dir(self) -> None:
        self.save_dir.mkdir(parents=True, exist_ok=True)
        write_file_atomically(self.save_dir / SETTINGS_FILE, json.dumps(self._run_description(), indent=1))

    def _unwrap_weights(self, models: list[Any], weights: list[Any], output_dir: str) -> None:
        weights[:] = [self.accelerator.get_state_dict(model, unwrap=True) for model in models]

    def _unwrap_models(self, models: list[Any], input_dir: str) -> None:
        models[:] = [self.accelerator.unwrap_model(model) for model in models]

    # ------------------------------------------------------------------ resuming

    def _find_checkpoint(self, given: GivenOptions) -> SavedRun | None:
        """What `--resume_from` means. Process 0 decides, the others follow."""
        decision: list[Any] = [None]
        if self.accelerator.is_main_process:
            try:
                decision = [self._choose_checkpoint(given)]
            except CheckpointError as error:
                decision = [error]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(decision)
        if isinstance(decision[0], CheckpointError):
            raise decision[0]
        return decision[0]

    def _choose_checkpoint(self, given: GivenOptions) -> SavedRun | None:
        resume_from = given.values.get("resume_from")
        save_dir = save_folder(resume_from, given.values.get("save_dir"))
        for line in CheckpointStore(save_dir).recover():
            self.console.say(line)
        if resume_from is None:
            self._refuse_overwriting(save_dir)
            return None
        point = locate(resume_from, save_dir)
        if point is None:
            self.console.say(f"{save_dir} has no checkpoint yet: starting from the beginning")
            return None
        for problem in point.problems:
            self.console.say(f"WARNING: damaged checkpoint: {problem}")
        if point.problems:
            lost = f"; {point.steps_lost:,} optimizer steps are done again" if point.steps_lost is not None else ""
            self.console.say(f"Falling back to {point.folder}{lost}")
        try:
            run = json.loads((point.folder / SETTINGS_FILE).read_text(encoding="utf-8"))
            config = ProteinModelConfig.from_pretrained(point.folder).to_dict()
            return SavedRun(point, run["settings"], run["data"], int(run["shards"]), config)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{point.folder}: its settings cannot be read ({error})") from error

    def _refuse_overwriting(self, save_dir: Path) -> None:
        present = CheckpointStore(save_dir).resumable()
        if present:
            raise CheckpointError(
                f"{save_dir} holds the checkpoints of another run (the newest is {present[0].name}). Give "
                "--resume_from latest to go on with it, or another --save_dir to start a new one."
            )

    def _cut_steps(self, saved: SavedRun | None) -> tuple[int, int]:
        """Shards of a global batch, and how many of them each process takes."""
        processes = self.accelerator.num_processes
        asked = self.settings.gradient_accumulation_steps
        if saved is None:
            micro_steps = asked or self.accelerator.gradient_accumulation_steps
            shards = processes * micro_steps
        else:
            shards = saved.shards
            micro_steps = shards_per_process(shards, processes)
            if asked is not None and asked != micro_steps:
                self.console.say(
                    f"--gradient_accumulation_steps {asked} is not used: the run cuts a step into {shards} shards, "
                    f"which makes {micro_steps} micro-batches for each of {processes} processes"
                )
        # Micro-batches are weighted by this trainer; the Accelerator must not divide by their number as well.
        self.accelerator.gradient_accumulation_steps = 1
        return shards, micro_steps

    def _compare(self, saved: SavedRun, config: ProteinModelConfig) -> None:
        """Refuse another architecture, and say what else differs."""
        checkpoint = str(saved.point.folder)
        refused = compatibility.architecture_differences(saved.config, config.to_dict())
        if refused:
            raise CheckpointError(compatibility.refusal(checkpoint, refused))
        current = self._run_description()["settings"]
        names = compatibility.SCHEDULE + compatibility.OTHER
        for difference in compatibility.setting_differences(saved.settings, current, names):
            self.console.say(f"Changed on resume: {difference}")
        if saved.data["fingerprint"] != self.data.cache.fingerprint:
            self.console.say(
                f"WARNING: the data are not those of the checkpoint: {saved.data['training_structures']:,} training "
                f"and {saved.data['validation_structures']:,} validation structures then, "
                f"{len(self.data.split.train):,} and {len(self.data.split.validation):,} now"
            )

    def _load(self, saved: SavedRun) -> None:
        """Load the state and put the run where the checkpoint stands."""
        folder = saved.point.folder
        if saved.point.manifest.registered != list(self.registered):
            raise CheckpointError(
                f"{folder} registers {', '.join(saved.point.manifest.registered)}, but this version of the package "
                f"{', '.join(self.registered)}"
            )
        steps_per_epoch = self.progress.steps_per_epoch
        self.accelerator.load_state(str(folder / STATE_FOLDER))
        for group, decay in zip(self.optimizer.param_groups, (self.settings.weight_decay, 0.0), strict=True):
            group["weight_decay"] = decay
        progress, old_steps = self.progress, self.progress.steps_per_epoch
        if old_steps != steps_per_epoch:
            begun = progress.step_in_epoch
            progress.step = progress.epoch * steps_per_epoch
            progress.steps_per_epoch = steps_per_epoch
            progress.start_epoch()
            self.console.say(
                f"WARNING: an epoch has {steps_per_epoch:,} optimizer steps now, {old_steps:,} before"
                + (f"; the {begun:,} steps of the unfinished epoch are done again" if begun else "")
            )
        fraction = progress.step / steps_per_epoch
        if progress.epoch and not self.history.epochs:
            self.console.say(
                f"WARNING: {folder} has no loss history: the loss curve starts anew at epoch {progress.epoch + 1}"
            )
        self.history.resumes.append({"step": progress.step, "epoch": fraction, "checkpoint": str(folder)})
        self.console.say(
            f"Resumed from {folder}: continues with epoch {progress.epoch + 1}"
            + (f", step {progress.step_in_epoch + 1} of {steps_per_epoch}" if progress.step_in_epoch else "")
            + f" of {self.settings.epochs}; {len(self.history.column('train_loss'))} epochs in the train history, "
            f"{len(self.history.column('validation_loss'))} in the validation history; best validation loss "
            f"{self.best.loss:.4f} nats/residue (epoch {self.best.epoch}); learning rate "
            f"{self.schedule.rate(max(progress.step - 1, 0)):.3e} -> {self.schedule.rate(progress.step):.3e}"
        )
        if self.accelerator.is_main_process:
            for path in self.store.set_aside_after(progress.step):
                self.console.say(f"Set aside, later than the checkpoint resumed from: {path}")
            self._begin_save_dir()
        self.accelerator.wait_for_everyone()

    def _describe(self) -> None:
        """Tell what is trained on what."""
        settings, data, accelerator = self.settings, self.data, self.accelerator
        residues = data.plan.lengths.sum() / data.plan.steps_per_epoch
        self.console.say(
            f"{parameter_count(self.network):,} parameters · {accelerator.num_processes} process"
            f"{'es' if accelerator.num_processes > 1 else ''} on {accelerator.device.type}, precision "
            f"{accelerator.mixed_precision} · {len(data.split.train):,} training and {len(data.split.validation):,} "
            f"validation structures · {data.plan.steps_per_epoch:,} optimizer steps per epoch of {self.shards} "
            f"micro-batches, about {residues:,.0f} residues each · {settings.epochs} epochs"
        )


def package_versions() -> dict[str, str]:
    """Versions of what a checkpoint depends on."""
    return {
        "protein_model": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "transformers": transformers.__version__,
    }


def _accelerator(given: GivenOptions) -> Accelerator:
    return Accelerator(
        mixed_precision=given.values.get("mixed_precision"),
        dataloader_config=DataLoaderConfiguration(even_batches=False, non_blocking=True),
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
    )


__all__ = ["SavedRun", "Trainer", "TrainingResult", "package_versions"]
