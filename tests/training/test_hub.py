"""Pushes of a real trained model by the real client to a loopback Hub, with the failures that a network has."""

import json
import shutil
import socket
import threading
import time
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import HfApi, snapshot_download

from protein_model.__main__ import main as command
from protein_model.data.storage import file_digest
from protein_model.errors import UserError
from protein_model.model.modeling import ProteinModel
from protein_model.training import hub
from protein_model.training.checkpoints import CheckpointStore
from protein_model.training.hub import HubError, HubTarget, Publisher, push_folder
from protein_model.training.model_folder import write_model_folder
from tests.training.hub_server import TOKEN, TRANSIENT, Failure, HubServer, failing
from tests.training.test_model_folder import example_inputs, predicted_without_this_package

TARGET = HubTarget("lab/tiny", private=False, licence="mit")


@pytest.fixture
def server():
    with HubServer() as server:
        yield server


@pytest.fixture(autouse=True)
def patient_client(monkeypatch, tmp_path):
    """The client as it is, but its own retries wait milliseconds, and it uploads by LFS, which the loopback speaks."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no_token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    short = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: time.sleep(min(seconds, 0.01))})
    monkeypatch.setattr("huggingface_hub.utils._http.time", short)


@pytest.fixture
def save_dir(trained_run, tmp_path):
    """A save folder with a best model that the test may change."""
    shutil.copytree(trained_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def folder(trained_run, tmp_path):
    write_model_folder(trained_run / "best_model", tmp_path / "folder", TARGET.repository, TARGET.licence)
    return tmp_path / "folder"


def api_of(server, token=TOKEN):
    return HfApi(endpoint=server.url, token=token)


def publisher(server, save_dir, said, every_seconds=0.0, api=None, target=TARGET):
    return Publisher(
        save_dir / "best_model",
        target,
        said.append,
        every_seconds,
        api or api_of(server),
        poll_seconds=0.02,
        first_wait_seconds=0.02,
    )


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def better_model(save_dir, step):
    """Replace the best model by another one as training does."""
    store = CheckpointStore(save_dir)
    temporary = store.begin("best_model")
    model = ProteinModel.from_pretrained(save_dir / "best_model")
    with torch.no_grad():
        model.decoder.to_logits.bias.add_(1.0)
    model.save_pretrained(temporary)
    shutil.copy(save_dir / "best_model" / "settings.json", temporary)
    return store.commit(temporary, step, 2, [], {})


def test_a_push_with_every_third_request_failing_arrives_whole_and_works(server, save_dir, tmp_path):
    """30 % of all requests fail; then the model is downloaded by the client and used without this package."""
    server.rule = failing(0.3, seed=1)
    said = []
    pushing = publisher(server, save_dir, said)
    pushing.start()
    assert pushing.close(finished=True, patience_seconds=120), said
    assert sum(server.failures.values()) >= 3 and len(server.failures) >= 2
    server.rule = lambda method, path: None

    local = tmp_path / "downloaded"
    snapshot_download("lab/tiny", endpoint=server.url, local_dir=local)
    expected = tmp_path / "expected"
    write_model_folder(save_dir / "best_model", expected, "lab/tiny", "mit")
    for path in expected.iterdir():
        assert (local / path.name).read_bytes() == path.read_bytes(), path.name

    inputs = example_inputs()
    found = predicted_without_this_package(local, inputs, tmp_path)
    model = ProteinModel.from_pretrained(save_dir / "best_model").eval()
    with torch.no_grad():
        assert torch.equal(found, model(**inputs).logits)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_whatever_fails_the_repository_has_the_whole_model_or_no_commit(server, folder, share, seed):
    server.rule = failing(share, seed)
    expected = {path.name: path.read_bytes() for path in folder.iterdir()}
    for _ in range(200):
        try:
            push_folder(folder, TARGET, "push", api_of(server))
            break
        except HubError as error:
            assert not error.lasting, error
            for repository in server.repositories.values():
                for _, _, files in repository.commits[1:]:
                    assert expected.items() <= files.items()
    assert expected.items() <= server.repositories["lab/tiny"].files.items()


@pytest.mark.parametrize("failure", TRANSIENT, ids=lambda failure: failure.name)
def test_a_failure_that_passes_is_waited_for(server, folder, failure):
    """At every single call of a push, once."""
    calls: list[str] = []
    server.rule = lambda method, path: calls.append(path)
    push_folder(folder, TARGET, "push", api_of(server))
    for number in range(len(calls)):
        del server.repositories["lab/tiny"]
        server.blobs.clear()
        count = iter(range(1000))
        server.rule = lambda method, path, count=count, number=number: failure if next(count) == number else None
        for _ in range(3):
            try:
                push_folder(folder, TARGET, "push", api_of(server))
                break
            except HubError as error:
                assert not error.lasting, error
        assert file_digest(folder / "model.safetensors") in server.blobs
        assert len(server.repositories["lab/tiny"].commits) >= 2


def test_retry_after_is_respected(server, save_dir, monkeypatch):
    """The client's own retries are used up first."""
    server.rule = lambda method, path: Failure(status=429, retry_after=7) if method == "GET" else None
    said = []
    pushing = publisher(server, save_dir, said)
    pushing.start()
    wait_until(lambda: said)
    assert "the Hub limits the rate of requests (status 429: " in said[0] and "tried again in 7 s" in said[0]
    pushing.close(finished=False)


@pytest.mark.parametrize(
    ("target", "token", "text"),
    [
        (HubTarget("lab/tiny", False, "mit"), None, "there is no access token: run `hf auth login`, or set HF_TOKEN"),
        (HubTarget("lab/tiny", False, "mit"), "hf_wrong", "the access token is not accepted (status 401"),
        (HubTarget("others/tiny", False, "mit"), TOKEN, "the access token has no right to write to others/tiny"),
        (HubTarget("lab/bert", False, "mit"), TOKEN, "lab/bert exists and holds something else (.gitattributes, conf"),
        (HubTarget("lab/data", False, "mit"), TOKEN, "lab/data exists and holds something else (.gitattributes, res"),
        (HubTarget("lab/empty", True, "mit"), TOKEN, "lab/empty is public, but --hub_private is given"),
    ],
    ids=["no token", "401", "403", "another model", "no model", "public"],
)
def test_what_does_not_pass_by_itself_is_said_and_nothing_is_written(server, folder, target, token, text):
    server.add("lab/bert", **{"config.json": b'{"model_type": "bert"}'})
    server.add("lab/data", **{"results.csv": b"1"})
    server.add("lab/empty")
    before = {name: len(repository.commits) for name, repository in server.repositories.items()}
    with pytest.raises(HubError) as caught:
        push_folder(folder, target, "push", api_of(server, token))
    assert caught.value.lasting and text in str(caught.value)
    assert {name: len(repository.commits) for name, repository in server.repositories.items()} == before


def test_a_repository_made_at_the_same_time_by_another_push_is_used(server, folder):
    """Creating it answers 409 although it was not there a moment before."""
    first = iter([True])

    def rule(method, path):
        if path == "/api/repos/create" and next(first, False):
            server.add("lab/tiny")
        return None

    server.rule = rule
    push_folder(folder, TARGET, "push", api_of(server))
    assert "model.safetensors" in server.repositories["lab/tiny"].files


def test_a_new_repository_is_private_when_asked_for(server, folder):
    push_folder(folder, HubTarget("lab/secret", True, "mit"), "push", api_of(server))
    assert server.repositories["lab/secret"].private
    push_folder(folder, HubTarget("lab/secret", True, "mit"), "push", api_of(server))  # and it is recognised


def test_pushing_what_is_there_already_makes_no_commit(server, folder):
    push_folder(folder, TARGET, "push", api_of(server))
    commits = len(server.repositories["lab/tiny"].commits)
    push_folder(folder, TARGET, "push", api_of(server))
    assert len(server.repositories["lab/tiny"].commits) == commits
    assert server.requests["lfs_upload"] == 2  # weights and picture, once


def test_every_better_model_is_pushed_but_not_more_often_than_asked(server, save_dir):
    said = []
    pushing = publisher(server, save_dir, said)
    pushing.start()
    for number in range(3):
        wait_until(lambda number=number: len(said) == number + 1)
        assert said[number].startswith("Pushed the best model, epoch 2, to http")
        expected = (save_dir / "best_model" / "model.safetensors").read_bytes()
        assert server.repositories["lab/tiny"].files["model.safetensors"] == expected
        better_model(save_dir, 100 + number)
    wait_until(lambda: len(said) == 4)
    pushing.close(finished=False)

    better_model(save_dir, 103)
    rare = publisher(server, save_dir, said, every_seconds=3600.0)
    rare.start()
    wait_until(lambda: "Pushed" in said[-1])
    commits = len(server.repositories["lab/tiny"].commits)
    for number in range(3):
        better_model(save_dir, 200 + number)
        time.sleep(0.1)
    assert len(server.repositories["lab/tiny"].commits) == commits
    assert rare.close(finished=True, patience_seconds=60)  # at the end, however soon that is
    expected = (save_dir / "best_model" / "model.safetensors").read_bytes()
    assert server.repositories["lab/tiny"].files["model.safetensors"] == expected
    assert "The best model is on the Hub: http" in said[-1]
    assert not (save_dir / hub.UPLOAD_FOLDER).exists()


def test_a_resumed_run_does_not_push_again_what_is_there(server, save_dir):
    said = []
    first = publisher(server, save_dir, said)
    first.start()
    wait_until(lambda: said)
    first.close(finished=False)
    requests = sum(server.requests.values())
    second = publisher(server, save_dir, said)
    second.start()
    time.sleep(0.2)
    second.close(finished=False)
    assert sum(server.requests.values()) == requests
    assert said[-1] == f"The best model is on the Hub: {json.loads((save_dir / 'hub.json').read_text())['address']}"


def test_a_model_that_is_replaced_during_every_push_never_arrives_mixed(server, save_dir):
    """Weights of one model under the card of another would be the worst of all failures."""
    stop = threading.Event()

    def replace():
        step = 1000
        while not stop.is_set():
            better_model(save_dir, step)
            step += 1

    training = threading.Thread(target=replace)
    training.start()
    said = []
    pushing = publisher(server, save_dir, said)
    pushing.start()
    time.sleep(2.0)
    stop.set()
    training.join()
    assert pushing.close(finished=True, patience_seconds=60), said
    assert (
        server.repositories["lab/tiny"].files["model.safetensors"]
        == (save_dir / "best_model" / "model.safetensors").read_bytes()
    )


def test_without_a_network_the_end_tells_the_one_command(server, save_dir, monkeypatch, capsys):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
    said = []
    pushing = publisher(server, save_dir, said, api=HfApi(endpoint=nowhere, token=TOKEN))
    pushing.start()
    wait_until(lambda: said)
    assert f"no connection to {nowhere} (ConnectError" in said[0] and "Training goes on" in said[0]
    assert not pushing.close(finished=True, patience_seconds=0.3)
    assert "The newest best model is NOT on the Hub: no connection" in said[-1]
    words = said[-1].splitlines()[-1].split()
    assert words[:4] == ["python", "-m", "protein_model", "push"]

    # The command as it was told, once the network is back.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert command(words[3:]) == 0
    assert capsys.readouterr().out.strip() == f"{server.url}/lab/tiny/commit/{server.repositories['lab/tiny'].head}"


def test_a_hub_that_never_answers_does_not_hold_up_the_end(save_dir):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        said = []
        api = HfApi(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", token=TOKEN)
        pushing = publisher(None, save_dir, said, api=api)
        pushing.start()
        time.sleep(0.2)
        started = time.monotonic()
        assert not pushing.close(finished=True, patience_seconds=0.3)
        assert not pushing.close(finished=False)
        assert time.monotonic() - started < 2.0
        assert "NOT on the Hub" in said[-1]


def test_the_command_gives_up_with_status_1_and_refuses_with_status_2(server, trained_run, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr("protein_model.commands.push.FIRST_WAIT_SECONDS", 0.0)
    push = ["push", "--model", str(trained_run / "best_model"), "--hub_model_id", "lab/tiny"]
    assert command(push) == 2
    assert capsys.readouterr().err == "error: there is no access token: run `hf auth login`, or set HF_TOKEN\n"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.rule = lambda method, path: Failure(status=503)
    assert command(push) == 1
    assert "given up after 6 attempts" in capsys.readouterr().err
    server.rule = lambda method, path: None
    assert command([*push, "--hub_license", "cc-by-4.0"]) == 0
    assert b"license: cc-by-4.0" in server.repositories["lab/tiny"].files["README.md"]


def test_a_name_that_the_hub_does_not_allow_is_refused_before_training():
    with pytest.raises(UserError, match=r"--hub_model_id lab/a/b"):
        HubTarget("lab/a/b", False, "mit")


def test_offline_mode_is_respected(server, folder, monkeypatch):
    """The variable forbids connections; a push must not find a way around it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        push_folder(folder, TARGET, "push", api_of(server))
    assert not server.requests


def test_a_run_pushes_its_best_model_and_a_failing_hub_changes_nothing_of_it(start, server, monkeypatch, capsys):
    """The real trainer, once without a Hub, once with one that fails in every way at every third request."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr("protein_model.training.hub.FIRST_WAIT_SECONDS", 0.05)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    alone = start(save_dir="alone", epochs=2)
    alone.fit()
    server.rule = failing(0.3, seed=2)
    pushed = start(save_dir="pushed", epochs=2, push_to_hub=True, hub_model_id="lab/tiny", hub_every_minutes=0.0)
    pushed.fit()
    assert "The best model is on the Hub: " in capsys.readouterr().out
    files = server.repositories["lab/tiny"].files
    assert files["model.safetensors"] == (alone.save_dir / "best_model" / "model.safetensors").read_bytes()
    assert b"2 epochs, " in files["README.md"]  # the whole history, whenever the best model was pushed before


def test_the_client_is_of_a_tested_version():
    assert (1, 31) <= tuple(map(int, huggingface_hub.__version__.split(".")[:2])) < (3, 0)
