#!/usr/bin/env python3
"""Train a structure-conditioned protein sequence model; `--help` lists all options.

python train_accelerate.py                                             embedded examples, a few minutes on a CPU
python train_accelerate.py --pdb_path my_structures                    own PDB / mmCIF files
accelerate launch --config_file accelerate_configs/multi_gpu_8.yaml train_accelerate.py --pdb_path my_structures
accelerate launch ... train_accelerate.py --resume_from latest         go on after an interruption
"""

import signal
import sys

from protein_model.errors import UserError
from protein_model.inference.design import example_designs, load_model
from protein_model.processor import keep_memory
from protein_model.training.arguments import parse_options
from protein_model.training.signals import EXIT_STOPPED, StopRequest, follow_launcher
from protein_model.training.trainer import RunStopped, Trainer


def main() -> int:
    """Parse, build, fit, show.

    Returns
    -------
    the exit status: 0 trained to the end, 2 options or files cannot work or the run diverged, 75 stopped by a signal
    with everything saved, to be started again
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler would end in a traceback
    keep_memory()
    stop = StopRequest()
    try:
        given = parse_options()
        follow_launcher()
        # Until then a signal ends a process at once: one that waits for the others could not act on it.
        trainer = Trainer(given, stop, joined=stop.install)
        if trainer.settings.dry_run:
            return 0
        result = trainer.fit()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except RunStopped:
        return EXIT_STOPPED
    finally:
        stop.uninstall()
    shown = result.data.split.validation[: trainer.settings.num_example_designs]
    if trainer.accelerator.is_main_process and len(shown) and result.best_model is not None:
        examples = [result.data.cache.structure(int(row)) for row in shown]
        trainer.console.say(example_designs(load_model(result.best_model), examples))
    trainer.accelerator.end_training()
    return 0


if __name__ == "__main__":
    sys.exit(main())
