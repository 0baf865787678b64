"""The training run: epochs of optimizer steps, validation, when to save, when to stop.

Order of events, once around: find the checkpoint to go on from -> complete the options -> build data and model ->
compare with the checkpoint -> load it -> epochs -> best model. What a resume means is left to `resuming`, how a
checkpoint is written to `saving` and `checkpoints`, the order of the data to `data.batching`, the loss to
`model.modeling`.
"""

from __future__ import annotations

import contextlib
import copy
import enum
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from transformers.utils.logging import disable_progress_bar

from ..data.batching import shards_per_process
from ..data.cache import CacheInterrupted
from ..data.storage import write_atomically
from ..model.configuration import ProteinModelConfig
from ..model.modeling import ProteinModel, parameter_count
from ..processor import flush_denormals
from ..randomness import derived_seed
from ..wording import counted
from .accelerating import accelerator_of, choose_deterministic_algorithms, refuse_impossible_order, timeout_seconds
from .arguments import GivenOptions, refuse_addresses
from .averaging import WeightAverage
from .checkpoints import BEST_MODEL, STATE_FOLDER, CheckpointError, CheckpointStore, save_folder
from .compiling import compile_network, refuse_impossible_compilation
from .curves import draw_loss_curve
from .description import lines_about, package_versions, run_description
from .divergence import DivergencePolicy, RunDiverged
from .epoch_records import epoch_entry, epoch_line, shown_designs
from .fused_layer import fuse_layers
from .fusing import refuse_impossible_fusion
from .hub import publisher_of
from .launching import Whereabouts, refuse_different_data
from .layout import SETTINGS_FILE
from .mirror import mirror_of
from .preparation import TrainingData, build_optimizer, model_configuration, prepare_data
from .progress import BestValidation, LossHistory, TrainingProgress
from .records import HISTORY_FILE, write_history
from .reporting import LOG_FILE, Console, EpochProgress
from .restoring import Registered, restore
from .resuming import SavedRun, compare, find_saved_run, planned_schedule
from .saving import CheckpointWriter, RunState, help_snapshot, load_state
from .sharding import gather_for_parts
from .signals import StopRequest, shielded
from .starting import architecture_options, starting_model
from .stepping import OptimizerSteps
from .summary import run_summary
from .tracking import Tracking
from .validation import ValidationResult, validate

LOSS_CURVE_FILE = "loss_curve.png"
SECONDS_BETWEEN_CURVES = 20.0  # drawing takes a part of a second, which runs of short epochs would feel


class RunStopped(Exception):
    """The run was asked to stop and has saved what there was to save; it is to be started again."""


class _Outcome(enum.Enum):
    """How a pass through the steps of an epoch ended."""

    FINISHED = enum.auto()
    STOPPED = enum.auto()
    ROLLED_BACK = enum.auto()


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes
    ----------
    best_model : folder of the model with the lowest validation loss; None where that was reached before a resume into
        another folder
    best_loss : that loss, nats per scored residue
    best_epoch : epoch that reached it
    data : what it was trained and validated on
    """

    best_model: Path | None
    best_loss: float
    best_epoch: int
    data: TrainingData


class Trainer:
    """One training run.

    Parameters
    ----------
    given : options of this launch
    stop : signals received; by default no signal is listened to
    joined : called once the processes of the launch have found each other

    Raises
    ------
    SettingsError, CheckpointError, BatchingError, ... : this launch cannot work; nothing was changed on disk but caches
    RunStopped : a signal came before training began
    """

    def __init__(self, given: GivenOptions, stop: StopRequest | None = None, joined: Callable[[], None] = lambda: None):
        flush_denormals()
        refuse_addresses(given)
        disable_progress_bar()  # the library's own, one for each file that it reads or writes
        self._launched = time.monotonic()
        self.stop = stop if stop is not None else StopRequest()  # one without a signal is false
        self.accelerator = accelerator_of(given)
        joined()
        self.console = Console(self.accelerator.is_main_process)
        self.whereabouts = Whereabouts(
            self.accelerator.process_index, self.accelerator.num_processes, self.console.tell, timeout_seconds(given)
        )
        self.whereabouts.at("looking for a checkpoint")
        saved = find_saved_run(self.accelerator, given, self.console.say)
        self.settings = settings = (
            given.resolve(saved.settings) if saved else given.resolve(settled=architecture_options(given))
        )
        refuse_impossible_order(self.accelerator, settings.deterministic)
        self.whereabouts.at("trying the compiler")
        refuse_impossible_compilation(self.accelerator, settings.compile)
        refuse_impossible_fusion(self.accelerator, settings)
        choose_deterministic_algorithms(self.accelerator, settings.deterministic)
        self.save_dir = save_folder(given.values.get("resume_from"), given.values.get("save_dir"))
        self.store = CheckpointStore(self.save_dir)
        self.tracking = Tracking(
            self.accelerator, settings.report_to, settings.log_every_steps, self.save_dir, self.console.say
        )
        speaks = self.accelerator.is_main_process
        self.publisher = publisher_of(settings, self.save_dir / BEST_MODEL, self.console.say) if speaks else None
        self.mirror = mirror_of(settings, self.store, self.console.say) if speaks else None
        self.shards, self.micro_steps = self._cut_steps(saved)
        self.whereabouts.at("preparing the data")
        self.data = self._prepare_data()
        self.whereabouts.at("building the model")
        config = model_configuration(settings)
        self.schedule = planned_schedule(settings, self.data.plan.steps_per_epoch, self.shards, saved)
        if saved is not None:
            compare(saved, config, self._run_description(), self.console.say)

        torch.manual_seed(derived_seed(settings.seed, "weights"))
        network = self._build_network(config, saved is not None)
        optimizer = build_optimizer(network, settings.weight_decay, self.accelerator.device)
        self.model, self.optimizer, self.train_loader, self.validation_loader = self.accelerator.prepare(
            network, optimizer, self.data.train_loader, self.data.validation_loader
        )
        self.network: ProteinModel = self.accelerator.unwrap_model(self.model)
        gather_for_parts(self.network)
        if settings.compile and settings.batch_residues is not None:
            compile_network(self.network, settings.batch_residues)

        self.progress = TrainingProgress(self.data.plan.steps_per_epoch, self.shards, settings.seed)
        self.history = LossHistory()
        self.best = BestValidation()
        self.average = WeightAverage(self.network, settings.ema_decay)
        self.registered = Registered(self.progress, self.history, self.best, self.average)
        self.accelerator.register_for_checkpointing(*self.registered.by_name().values())
        self.writer = CheckpointWriter(
            self.accelerator, config, self.average, self.store, package_versions(), self.console.say
        )
        self.steps = OptimizerSteps(
            self.accelerator,
            self.model,
            self.optimizer,
            self.average,
            settings,
            self.micro_steps,
            nominal_residues=float(self.data.plan.lengths.sum()) / (self.shards * self.data.plan.steps_per_epoch),
        )
        self.divergence = DivergencePolicy(settings, self.console.say)
        self._curve_drawn = -math.inf
        self._went_back = False

        self._saved = saved
        if saved is not None:
            self._go_on_from(saved)
        if not settings.dry_run and self.accelerator.is_main_process:
            self._begin_save_dir()
            self.console.log_to(self.save_dir / LOG_FILE)
        for line in lines_about(
            settings, self.data, self.schedule, self.shards, self.accelerator, parameter_count(self.network)
        ):
            self.console.say(line)

    def _prepare_data(self) -> TrainingData:
        interrupted: CacheInterrupted | None = None
        try:
            data = prepare_data(
                self.settings,
                self.shards,
                self.accelerator.process_index,
                self.accelerator.num_processes,
                self.console.say if self.accelerator.is_main_process else None,
                self.stop.__bool__,
            )
        except CacheInterrupted as error:
            interrupted = error
        if self._any_process(interrupted is not None or bool(self.stop)):
            self.store.unlock()
            reason = f": {interrupted}" if interrupted is not None else ""
            self.console.say(
                f"Stopped by {self._signal_name()} before training began{reason}; nothing of it is lost, start the run "
                "again in the same way"
            )
            raise RunStopped("before training began")
        if self.accelerator.num_processes > 1:
            refuse_different_data(gather_object([data.cache.fingerprint]), self.settings.pdb_path)
        return data

    def _build_network(self, config: ProteinModelConfig, resumed: bool) -> ProteinModel:
        settings = self.settings
        if settings.start_from is not None and not resumed:
            with self.accelerator.local_main_process_first():  # a download is made once
                network = starting_model(settings.start_from, settings.dropout)
            self.console.say(f"Begins with the weights of {settings.start_from}")
        else:
            network = ProteinModel(config)
        network.encoder.recompute = settings.gradient_checkpointing
        if settings.fused_layers:
            fuse_layers(network)
        return network

    # ------------------------------------------------------------------ the run

    def fit(self) -> TrainingResult:
        """Train to the last epoch, or until early stopping.

        Raises
        ------
        RunStopped : a signal came; everything done so far is in a committed checkpoint
        RunDiverged : see `--on_divergence`
        CheckpointError : the last checkpoint of the run could not be written
        """
        finished = False
        progress = self.progress
        try:
            pending = progress.epoch > progress.epochs_recorded
            self.tracking.start(self.settings.to_dict(), progress.step, pending, self._went_back)
            if self.publisher is not None:
                self.publisher.start()
            if self.mirror is not None:
                self.mirror.start()
            result = self._fit()
            finished = True
            return result
        finally:
            self.whereabouts.at("ending the run")
            self.writer.wait()
            if self.mirror is not None:
                self.mirror.close(finished)
            if self.publisher is not None:
                self.publisher.close(finished)
            if not finished:  # else sampled designs are still to come
                self.tracking.close()
            self.whereabouts.close()
            if self.accelerator.is_main_process:
                self.store.unlock()

    def _fit(self) -> TrainingResult:
        settings, progress = self.settings, self.progress
        if progress.epochs_recorded >= settings.epochs:
            self.console.say(
                f"Nothing to do: {progress.epoch} of {counted(settings.epochs, 'epoch')} done; a higher --epochs goes "
                "on."
            )
        self._complete_save()
        self.steps.settle_buckets()
        while progress.epochs_recorded < settings.epochs and not self._out_of_patience():
            outcome = _Outcome.FINISHED
            if progress.epoch == progress.epochs_recorded:  # else only its validation was interrupted
                outcome = self._train_epoch()
            if outcome is _Outcome.ROLLED_BACK:
                continue
            result = self._validate() if outcome is _Outcome.FINISHED else None
            if result is None:
                self._stop_here()
            else:
                self._end_epoch(result)
        if self._out_of_patience():
            self.console.say(
                f"Stopped early: no improvement for {counted(self.best.epochs_without_improvement, 'epoch')} "
                f"(--early_stopping_patience {settings.early_stopping_patience})."
            )
        self._insist_on_last_save()
        if self.accelerator.is_main_process:
            self._draw_curve(self.history, self.best)
        # A run that was resumed into another folder may not have reached again what was best before.
        best_model = self.save_dir / BEST_MODEL if (self.save_dir / BEST_MODEL).is_dir() else None
        if self.accelerator.is_main_process:
            checkpoints = self.store.checkpoints()
            self.console.say(
                run_summary(
                    self.save_dir,
                    self.history,
                    self.best,
                    best_model,
                    checkpoints[0] if checkpoints else None,
                    time.monotonic() - self._launched,
                    self.writer.stall_seconds,
                )
            )
        self.accelerator.wait_for_everyone()
        return TrainingResult(best_model, self.best.loss, self.best.epoch, self.data)

    def _train_epoch(self) -> _Outcome:
        """The steps of the current epoch that are not done yet."""
        progress, settings = self.progress, self.settings
        first = progress.step_in_epoch
        if first == 0:
            progress.start_epoch()
        self.steps.restart_sums(self.progress.epoch_sums)
        self.data.sampler.seek(progress.epoch, first)
        bar = EpochProgress(self.console, progress.epoch + 1, settings.epochs, first, progress.steps_per_epoch)
        self.model.train()
        try:
            self.whereabouts.at(f"epoch {progress.epoch + 1}, step {progress.step + 1}: reading a batch")
            # The loader ends with the epoch, and the last step below makes `progress` point to the next one.
            for index, batch in enumerate(shielded(self.train_loader)):
                self.whereabouts.at(f"epoch {progress.epoch + 1}, step {progress.step + 1}: computing")
                micro_step = index % self.micro_steps
                left_out = progress.step in progress.skipped_steps
                if not left_out:
                    self.steps.accumulate(batch, progress.step, micro_step)
                if micro_step < self.micro_steps - 1:
                    continue
                result = self.steps.update(self.schedule.rate(progress.step), bool(self.stop), left_out)
                progress.step += 1
                if result.finite:
                    self.divergence.step_taken()
                elif self._diverged():
                    self.tracking.rewind(progress.step)
                    return _Outcome.ROLLED_BACK
                self.tracking.step(
                    progress.step,
                    progress.step_in_epoch == 0,
                    result.loss,
                    result.learning_rate,
                    result.gradient_norm,
                    result.residues,
                )
                if bar.advance():
                    sums = self.steps.collect_sums()
                    bar.show(
                        sums["nll"] / max(sums["scored"], 1),
                        result.learning_rate,
                        sums["residues"] / max(sums["seconds"], 1e-9),
                    )
                if result.stop_requested:
                    return _Outcome.STOPPED
                due = settings.save_every_steps is not None and progress.step % settings.save_every_steps == 0
                if due and progress.step_in_epoch > 0:
                    self._save([f"checkpoint_step_{progress.step}"])
                self.whereabouts.at(f"epoch {progress.epoch + 1}, step {progress.step + 1}: reading a batch")
        finally:
            bar.close()
        return _Outcome.FINISHED

    def _diverged(self) -> bool:
        """Deal with a step that was not taken. True if the run went back to a checkpoint.

        Raises
        ------
        RunDiverged : the run must not go on
        """
        progress = self.progress
        rows = self.steps.rows_of_refused_step()
        if self.accelerator.num_processes > 1:
            rows = gather_object(rows)
        names = [self.data.cache.names[row] for row in rows]
        refused = self.divergence.refused(progress.step - 1, progress.steps_per_epoch, names)
        if not self.divergence.rollback_wanted(refused, self.history):
            return False
        self.writer.wait()
        folder = self._agreed_last_good()
        if folder is None:
            raise RunDiverged(f"{refused.what}. There is no checkpoint to go back to yet (--on_divergence rollback)")
        # Known only since the checkpoint was written.
        divergences = [*self.history.divergences, refused.event]
        skipped = {*progress.skipped_steps, refused.step}
        if self._saved is not None and folder.resolve() == self._saved.point.folder.resolve():
            self._restore(self._saved, say=lambda line: None)  # what it was made into by the resume is in no file yet
        else:
            load_state(self.accelerator, self.network, str(folder / STATE_FOLDER))
        self.history.divergences = divergences
        progress.skipped_steps = sorted(skipped | set(progress.skipped_steps))
        self.console.say(
            f"WARNING: {refused.what}. Back to {folder}, "
            f"{counted(refused.step - progress.step, 'optimizer step is', 'optimizer steps are')} done again, and this "
            "one is left out (--on_divergence rollback)."
        )
        return True

    def _agreed_last_good(self) -> Path | None:
        found: list[Any] = [None]
        if self.accelerator.is_main_process:
            with contextlib.suppress(CheckpointError):
                found = [self.store.newest_good([])[0]]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(found)
        return found[0]

    def _any_process(self, flag: bool) -> bool:
        """Whether `flag` is True on any process; all of them must ask."""
        value = torch.tensor([float(flag)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(value, "sum").item())

    def _validate(self) -> ValidationResult | None:
        """None if a signal came meanwhile."""
        self.whereabouts.at(f"validation after epoch {self.progress.epoch}")
        with self.average.applied():
            return validate(
                self.accelerator,
                self.network,
                self.validation_loader,
                self.settings.seed,
                self.settings.fully_masked_fraction,
                should_stop=lambda: self._any_process(bool(self.stop)),
            )

    def _end_epoch(self, result: ValidationResult) -> None:
        names = [BEST_MODEL] if self._record(result) else []
        if self._epoch_is_due():
            names.append(f"checkpoint_epoch_{self.progress.epoch}")
        if names:
            self._save(names)

    def _epoch_is_due(self) -> bool:
        """The epoch that has just ended gets a checkpoint of its own."""
        epoch, settings = self.progress.epoch, self.settings
        return epoch % settings.save_every == 0 or epoch == settings.epochs or self._out_of_patience()

    def _complete_save(self) -> None:
        """Write the checkpoint of an epoch where the run was killed after the best model of it, but before that."""
        name = f"checkpoint_epoch_{self.progress.epoch}"
        of_best_model = self._saved is not None and self._saved.point.folder == self.save_dir / BEST_MODEL
        if of_best_model and self._epoch_is_due():
            missing = self.accelerator.is_main_process and not (self.save_dir / name).exists()
            if self._any_process(missing):
                self._save([name])

    def _record(self, result: ValidationResult) -> bool:
        """Write the finished epoch into history, files and console. True if it is the best so far."""
        self.progress.epoch_sums = self.steps.collect_sums()
        epoch = self.progress.epoch
        entry = epoch_entry(self.progress, result, self.schedule.rate(self.progress.step - 1))
        self.history.epochs.append(entry)
        improved = self.best.update(result.loss, epoch, self.settings.early_stopping_min_delta)
        self.progress.epochs_recorded = epoch
        self.progress.start_epoch()
        if self.accelerator.is_main_process:
            self._write_history()
            self.tracking.epoch(entry, shown_designs(result, self.data.cache))
        self.console.say(epoch_line(entry, self.settings.epochs, improved))
        return improved

    def _out_of_patience(self) -> bool:
        patience = self.settings.early_stopping_patience
        return patience is not None and self.best.epochs_without_improvement >= patience

    # ------------------------------------------------------------------ saving

    def _save(self, names: list[str]) -> None:
        """Write the state under these names, in the background; a failure is reported, and training goes on."""
        progress = self.progress
        if progress.step > progress.epochs_recorded * progress.steps_per_epoch:
            progress.epoch_sums = self.steps.collect_sums()
        self.whereabouts.at(f"saving {names[-1]}")
        if not self.accelerator.is_main_process:
            help_snapshot(self._state())
            return
        drawn = None
        if time.monotonic() - self._curve_drawn > SECONDS_BETWEEN_CURVES:
            drawn = copy.deepcopy((self.history, self.best))  # they go on while it is drawn

        def afterwards() -> None:
            self.store.prune(self.settings.keep_last, self.settings.keep_every)
            if self.mirror is not None:
                self.mirror.look()
            if drawn is not None:
                self._draw_curve(*drawn)

        self.writer.save(
            names, self._state(), progress.step, progress.epochs_recorded, self._run_description(), afterwards
        )

    def _state(self) -> RunState:
        scaler = self.accelerator.scaler
        return RunState(
            model=self.network.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=None if scaler is None else scaler.state_dict(),
            registered={name: value.state_dict() for name, value in self.registered.by_name().items()},
        )

    def _stop_here(self) -> None:
        """Commit one last checkpoint and end the run for now."""
        name = f"checkpoint_step_{self.progress.step}"
        self._save([name])
        self._insist_on_last_save()
        self.console.say(
            f"Stopped by {self._signal_name()} after optimizer step {self.progress.step:,} (epoch "
            f"{self.progress.epoch + 1} of {self.settings.epochs}); {self.save_dir / name} is committed. "
            f"Go on with: --resume_from latest --save_dir {self.save_dir}"
        )
        self.accelerator.wait_for_everyone()
        raise RunStopped(name)

    def _signal_name(self) -> str:
        return self.stop.received.name if self.stop.received is not None else "a signal on another process"

    def _insist_on_last_save(self) -> None:
        """Wait for the last checkpoint; where it could not be written, try once more before giving up."""
        self.writer.wait()
        if self._any_process(self.writer.last_failure is not None):
            self._save([f"checkpoint_step_{self.progress.step}"])
            self.writer.wait()
            failure = self.writer.last_failure
            if self._any_process(failure is not None):
                raise CheckpointError(
                    f"the end of the run is not saved: {failure or 'see the message of process 0'}; once there is room "
                    f"to write to, go on with --resume_from latest --save_dir {self.save_dir}"
                )

    def _write_history(self) -> None:
        try:
            write_history(self.save_dir, self.history, self.best)
        except OSError as error:
            self.console.say(f"WARNING: {self.save_dir / HISTORY_FILE} could not be written ({error})")

    def _draw_curve(self, history: LossHistory, best: BestValidation) -> None:
        self._curve_drawn = time.monotonic()
        try:
            draw_loss_curve(self.save_dir / LOSS_CURVE_FILE, history, best)
        except OSError as error:
            self.console.say(f"WARNING: {self.save_dir / LOSS_CURVE_FILE} could not be drawn ({error})")

    def _run_description(self) -> dict[str, Any]:
        return run_description(self.settings, self.save_dir, self.data, self.schedule, self.shards, self.accelerator)

    def _begin_save_dir(self) -> None:
        try:
            self.save_dir.mkdir(parents=True, exist_ok=True)
            write_atomically(self.save_dir / SETTINGS_FILE, json.dumps(self._run_description(), indent=1))
        except OSError as error:
            raise CheckpointError(
                f"--save_dir {self.save_dir}: cannot be written to ({error.strerror or error}); give another one"
            ) from error

    # ------------------------------------------------------------------ resuming

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
                    f"--gradient_accumulation_steps {asked} is not used: the run cuts a step into "
                    f"{counted(shards, 'shard')}, which makes {counted(micro_steps, 'micro-batch', 'micro-batches')} "
                    f"for {'each of ' if processes > 1 else ''}{counted(processes, 'process', 'processes')}"
                )
        # Micro-batches are weighted by this trainer; the Accelerator must not divide by their number as well.
        self.accelerator.gradient_accumulation_steps = 1
        return shards, micro_steps

    def _go_on_from(self, saved: SavedRun) -> None:
        """Load the state and put the run where the checkpoint stands."""
        old_steps = self._restore(saved, self.console.say)
        self.steps.restart_sums(self.progress.epoch_sums)
        if self.settings.dry_run:
            return
        reason = "later than the checkpoint resumed from"
        if saved.point.manifest.step > self.progress.step:
            self._save_in_new_steps(saved, old_steps)
            reason = f"its epochs have {old_steps:,} steps"
        if self.accelerator.is_main_process:
            for path in self.store.set_aside_after(self.progress.step):
                self._went_back = True
                self.console.say(f"Set aside, {reason}: {path}")
        self.accelerator.wait_for_everyone()

    def _restore(self, saved: SavedRun, say: Callable[[str], None]) -> int:
        return restore(
            self.accelerator,
            self.network,
            self.optimizer,
            self.registered,
            saved,
            self.settings,
            self.schedule,
            self._run_description()["data"],
            say,
        )

    def _save_in_new_steps(self, saved: SavedRun, old_steps: int) -> None:
        """Write what was loaded once more, before the checkpoint that it is from is set aside.

        Checkpoints are ordered by steps. Where an epoch has another number of them than before, the new ones of the run
        may have fewer steps than those it goes on from, which must make way; a kill before the next save would lose
        everything.
        """
        step, epochs = self.progress.step, self.progress.epochs_recorded
        names = [f"checkpoint_step_{step}"]
        if self.best.epoch == epochs and saved.point.manifest.step == epochs * old_steps:
            names.append(BEST_MODEL)  # it is the checkpoint of that epoch, or equal to it
        if self.accelerator.is_main_process:
            self.writer.save(names, self._state(), step, epochs, self._run_description(), lambda: None)
            self.writer.wait()
        else:
            help_snapshot(self._state())
        failure = self.writer.last_failure
        if self._any_process(failure is not None):
            raise CheckpointError(
                f"an epoch had {old_steps:,} optimizer steps and has {self.progress.steps_per_epoch:,} now, so the "
                f"checkpoint has to be written anew, but {failure or 'see the message of process 0'}. Nothing was "
                "moved: start again when that is mended"
            )


__all__ = ["RunDiverged", "RunStopped", "Trainer", "TrainingResult"]
