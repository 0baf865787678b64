"""Signals are remembered, asked for at every step, and lead to one committed checkpoint."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from protein_model.training.checkpoints import CheckpointStore, verify
from protein_model.training.signals import EXIT_STOPPED, SIGNALS, StopRequest
from protein_model.training.trainer import RunStopped

from .comparison import assert_same, state_of


@pytest.fixture
def stop():
    request = StopRequest()
    request.install()
    yield request
    request.uninstall()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_remembered(stop, number):
    assert not stop
    os.kill(os.getpid(), number)
    assert stop and stop.received == number


def test_handlers_are_given_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    request = StopRequest()
    request.install()
    request.uninstall()
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_second_interrupt_ends_the_process_at_once_but_not_one_that_comes_twice():
    program = (
        "import time; from protein_model.training.signals import StopRequest\n"
        "stop = StopRequest(); stop.install(); print('ready', flush=True)\n"
        "while not stop: time.sleep(0.01)\n"
        "print('asked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # as a terminal and torchrun send it
    assert process.stdout.readline() == "asked\n"
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == -signal.SIGINT
    process.stdout.close()


def test_a_second_interrupt_also_ends_a_process_that_is_in_one_long_call():
    program = (
        "import hashlib; from protein_model.training.signals import StopRequest\n"
        "stop = StopRequest(); stop.install(); print('ready', flush=True)\n"
        "hashlib.pbkdf2_hmac('sha256', b'', b'', 2_000_000_000)"  # minutes, in which Python calls no handler
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(2.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(10) == -signal.SIGINT
    finally:
        process.kill()
        process.stdout.close()


class StopAtPoll(StopRequest):
    """Comes at the n-th time that somebody asks: in caching, grouping, training, validation, wherever that is."""

    def __init__(self, polls):
        super().__init__()
        self.left = polls

    def __bool__(self):
        self.left -= 1
        if self.left < 0 and self.received is None:
            self.received = signal.SIGTERM
        return self.received is not None


def test_stopped_anywhere_the_run_ends_bitwise_as_if_it_had_not_been(start):
    whole = start(save_dir="whole")
    whole.fit()
    randomness = random.Random(1)
    stops = []
    for _ in range(30):
        begun = CheckpointStore(whole.save_dir.parent / "part").checkpoints()
        options = {"resume_from": "latest"} if begun else {}
        try:
            part = start(save_dir="part", stop=StopAtPoll(randomness.randrange(2, 9)), **options)
            part.fit()
            break
        except RunStopped as stopped:
            stops.append(str(stopped))
    assert len(stops) >= 3
    assert any(name.startswith("checkpoint_step") for name in stops)
    assert_same(state_of(part), state_of(whole))


def test_a_stopped_run_says_how_to_go_on_and_holds_one_more_checkpoint(start, capsys):
    stop = StopRequest()
    trainer = start(stop=stop, save_every=100)
    step = trainer.steps.update

    def interrupted(rate, stop_requested, left_out):
        if trainer.progress.step == 1:
            stop.received = signal.SIGUSR1
        return step(rate, bool(stop), left_out)

    trainer.steps.update = interrupted
    with pytest.raises(RunStopped):
        trainer.fit()
    said = capsys.readouterr().out
    assert "Stopped by SIGUSR1 after optimizer step 2 (epoch 1 of 3)" in said
    assert f"--resume_from latest --save_dir {trainer.save_dir}" in said
    [checkpoint] = CheckpointStore(trainer.save_dir).checkpoints()
    assert verify(checkpoint).step == 2


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_ends_a_real_launch_with_a_checkpoint(launch, tmp_path, processes):
    run = tmp_path / "run"
    output, status = launch(
        *("--save_dir", str(run), "--epochs", "500", "--save_every", "500"),
        processes=processes,
        kill_when=lambda: (run / "history.json").exists(),
        kill_signal=signal.SIGTERM,
    )
    [checkpoint] = [path for path in CheckpointStore(run).checkpoints() if "step" in path.name]
    assert verify(checkpoint).step > 0
    assert "Stopped by SIGTERM" in output or "a signal on another process" in output
    assert status == EXIT_STOPPED if processes == 1 else status != 0  # torchrun has exit codes of its own
    output, status = launch("--save_dir", str(run), "--resume_from", "latest", "--dry_run", processes=processes)
    assert f"A resume from {checkpoint}" in output and status == 0
