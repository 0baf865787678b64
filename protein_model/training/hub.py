"""The best model on the Hugging Face Hub: one push, and pushes beside a training run that never hold it up.

What is pushed is written by `model_folder`. Everything that can go wrong on the way - no token, no network, a busy or
failing Hub, a name that is taken - is told in one line and tried again later; training does not depend on it.
"""

from __future__ import annotations

import json
import shlex
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, get_session, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars, logging, validate_repo_id

from ..data.storage import write_atomically
from ..errors import UserError
from ..model.configuration import ProteinModelConfig
from .arguments import Settings
from .checkpoints import CheckpointError, read_manifest
from .model_card import DEFAULT_LICENCE
from .model_folder import CONFIG_FILE, WEIGHTS_FILE, write_model_folder

UPLOAD_FOLDER = ".hub_upload"
PUSHED_FILE = "hub.json"  # what of this run is on the Hub already, so that a resumed run knows
CONNECTION_TIMEOUT_SECONDS = 120.0  # of one read or write; the client has none by itself
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 60.0, 3600.0
FIRST_WAIT_AT_THE_END_SECONDS = 5.0  # when a process is kept for the push alone
POLL_SECONDS = 5.0
PATIENCE_AT_THE_END_SECONDS = 600.0

# These do not pass by themselves: a person has to log in, ask for rights, or choose another name.
_REFUSALS = frozenset({400, 401, 402, 403, 404})
# A repository that has nothing but these is as good as new.
_FILES_OF_A_NEW_REPOSITORY = frozenset({".gitattributes", "README.md", "LICENSE"})


class HubError(UserError):
    """A model could not be pushed.

    Attributes
    ----------
    lasting : trying again does not help before a person has changed something
    retry_after : seconds that the Hub asks to wait, None where it does not say
    """

    def __init__(self, text: str, lasting: bool, retry_after: float | None = None):
        super().__init__(text)
        self.lasting = lasting
        self.retry_after = retry_after


@dataclass(frozen=True)
class HubTarget:
    """Where a model is pushed to.

    Attributes
    ----------
    repository : "organisation/name" or "name"
    private : a new repository is made private, and a public one is refused
    licence : identifier of the weights' licence, for the model card
    """

    repository: str
    private: bool
    licence: str

    def __post_init__(self) -> None:
        try:
            validate_repo_id(self.repository)
        except HFValidationError as error:
            raise UserError(f"--hub_model_id {self.repository}: {error}") from error

    def command(self, model: Path) -> str:
        """The command that pushes `model` here."""
        words = ["python", "-m", "protein_model", "push", "--model", str(model), "--hub_model_id", self.repository]
        words += ["--hub_private"] if self.private else []
        words += ["--hub_license", self.licence] if self.licence != DEFAULT_LICENCE else []
        return shlex.join(words)


def publisher_of(settings: Settings, model: Path, say: Callable[[str], None]) -> Publisher | None:
    """The publisher that the options ask for, not started yet; None without `--push_to_hub`.

    Raises
    ------
    UserError : the Hub does not allow the repository's name
    """
    if not settings.push_to_hub or settings.hub_model_id is None:
        return None
    target = HubTarget(settings.hub_model_id, settings.hub_private, settings.hub_license)
    return Publisher(model, target, say, 60.0 * settings.hub_every_minutes, first_wait_seconds=FIRST_WAIT_SECONDS)


def push_folder(folder: Path, target: HubTarget, message: str, api: HfApi | None = None) -> str:
    """Put all files of a folder into a repository, as one commit. The repository is made if there is none.

    Parameters
    ----------
    folder : as written by `write_model_folder`
    message : of the commit
    api : client to use; by default that of the environment (`HF_TOKEN`, `HF_ENDPOINT`, ...)

    Returns
    -------
    address of the commit

    Raises
    ------
    HubError : says in words what went wrong, and whether it can pass by itself
    """
    api = api or HfApi()
    if not (api.token or get_token()):
        raise HubError("there is no access token: run `hf auth login`, or set HF_TOKEN", lasting=True)
    try:
        get_session().timeout = CONNECTION_TIMEOUT_SECONDS
        _prepare_repository(api, target)
        operations = [
            CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in sorted(folder.iterdir())
        ]
        return api.create_commit(target.repository, operations, commit_message=message).commit_url
    except HubError:
        raise
    except Exception as error:  # the client lets through errors of several libraries; each is named to the user
        raise _explained(error, target, api.endpoint) from error


def _prepare_repository(api: HfApi, target: HubTarget) -> None:
    """Make the repository, or make sure that the one there is meant."""
    try:
        info = api.model_info(target.repository)
    except RepositoryNotFoundError:
        api.create_repo(target.repository, private=target.private or None, exist_ok=True)
        info = api.model_info(target.repository)
    if target.private and not info.private:
        raise HubError(
            f"{target.repository} is public, but --hub_private is given; make it private on the Hub or choose another "
            "--hub_model_id",
            lasting=True,
        )
    names = {file.rfilename for file in info.siblings or []}
    if names <= _FILES_OF_A_NEW_REPOSITORY:
        return
    try:
        config = json.loads(Path(api.hf_hub_download(target.repository, CONFIG_FILE)).read_text(encoding="utf-8"))
    except EntryNotFoundError:
        config = {}
    if config.get("model_type") != ProteinModelConfig.model_type:
        raise HubError(
            f"{target.repository} exists and holds something else ({', '.join(sorted(names)[:5])}); choose another "
            "--hub_model_id",
            lasting=True,
        )


def _explained(error: Exception, target: HubTarget, endpoint: str) -> HubError:
    """A failure of the client in words."""
    # An upload that fails in one of the client's threads comes wrapped.
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
    if isinstance(cause, OfflineModeIsEnabled):
        return HubError("HF_HUB_OFFLINE is set, which forbids all connections to the Hub", lasting=True)
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        said = (cause.server_message or "").strip() or cause.response.reason_phrase
        meaning = {
            401: "the access token is not accepted",
            403: f"the access token has no right to write to {target.repository}",
            404: f"{target.repository} cannot be found or made with this access token",
            409: f"{target.repository} is in conflict with something else on the Hub",
            429: "the Hub limits the rate of requests",
        }.get(status, "the Hub has a problem" if status >= 500 else "the Hub refuses the push")
        return HubError(
            f"{meaning} (status {status}: {said})", lasting=status in _REFUSALS, retry_after=_retry_after(cause)
        )
    if type(cause).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2"):
        return HubError(f"no connection to {endpoint} ({type(cause).__name__}: {cause})", lasting=False)
    return HubError(f"{type(cause).__name__}: {cause}", lasting=False)


def _retry_after(error: HfHubHTTPError) -> float | None:
    value = error.response.headers.get("retry-after", "")
    return float(value) if value.isdigit() else None


class Publisher:
    """Pushes the best model of a running training from a thread of its own.

    The thread looks at the best model's folder every few seconds: one that is not on the Hub yet is pushed, but not
    sooner than `every_seconds` after the push before. After a failure it waits for a minute, then for two, four, ... up
    to an hour, or as long as the Hub asks for; what does not pass by itself is tried again with the next better model
    and at the end.

    Parameters
    ----------
    model : folder of the best model, which training replaces whole
    target : where to push it
    say : prints a line
    every_seconds : shortest time between two pushes
    poll_seconds, first_wait_seconds : between looks, and after the first failure
    """

    def __init__(
        self,
        model: Path,
        target: HubTarget,
        say: Callable[[str], None],
        every_seconds: float,
        api: HfApi | None = None,
        poll_seconds: float = POLL_SECONDS,
        first_wait_seconds: float = FIRST_WAIT_SECONDS,
    ):
        self.model = model
        self.target = target
        self._say = say
        self._every = every_seconds
        self._api = api
        self._poll = poll_seconds
        self._first_wait = first_wait_seconds
        self._record = model.parent / PUSHED_FILE
        self._upload = model.parent / UPLOAD_FOLDER
        self._pushed, self._address = self._read_record()
        self._problem: HubError | None = None
        self._failures = 0
        self._given_up_on: str | None = None
        self._next = time.monotonic()
        self._closing = threading.Event()
        self._finished = False
        self._deadline = 0.0
        # A daemon: whatever it is waiting for, the process can end.
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)

    def start(self) -> None:
        """Begin to look for better models."""
        disable_progress_bars()
        logging.set_verbosity_error()  # its remarks on every retry; what fails in the end is said here
        if not (self._api and self._api.token) and not get_token():
            self._say(
                f"WARNING: --push_to_hub: there is no access token yet, so nothing can be pushed to "
                f"{self.target.repository}; training goes on. Run `hf auth login`, or set HF_TOKEN."
            )
        self._thread.start()

    def close(self, finished: bool, patience_seconds: float = PATIENCE_AT_THE_END_SECONDS) -> bool:
        """Push what is still to be pushed, and say how it went. True if the newest best model is on the Hub.

        Parameters
        ----------
        finished : training is over, and the last push with its whole history is worth waiting for; without it, the
            process has to end soon, and a push under way is not waited for
        patience_seconds : longest time to wait and to try again
        """
        self._finished = finished
        self._deadline = time.monotonic() + patience_seconds
        if finished and self._identity() is not None:
            self._say(f"Pushing the best model to {self.target.repository}")
        self._closing.set()
        self._thread.join(patience_seconds if finished else 0.0)
        shutil.rmtree(self._upload, ignore_errors=True)
        newest = self._identity()
        if newest is None:
            return False
        # At the end the same weights may go once more, with the whole history.
        if newest == self._pushed and not (finished and self._thread.is_alive()):
            self._say(f"The best model is on the Hub: {self._address}")
            return True
        reason = f": {self._problem}" if self._problem is not None else ""
        self._say(
            f"The newest best model is NOT on the Hub{reason}. To push it later:\n  {self.target.command(self.model)}"
        )
        return False

    def _run(self) -> None:
        while True:
            closing = self._closing.wait(self._poll)
            identity = self._identity()
            if identity is None:
                if closing:
                    return
                continue
            if closing:
                if self._finished:
                    self._push_at_the_end(identity)
                return
            wanted = identity not in (self._pushed, self._given_up_on)
            if wanted and time.monotonic() >= self._next:
                self._try(identity)

    def _push_at_the_end(self, identity: str) -> None:
        """Push at once, also where only the history is new; go on trying until the patience is over."""
        self._failures = 0
        self._first_wait = min(self._first_wait, FIRST_WAIT_AT_THE_END_SECONDS)
        while not self._try(identity):
            if self._problem is None or self._problem.lasting or self._next >= self._deadline:
                return
            time.sleep(max(0.0, self._next - time.monotonic()))

    def _try(self, identity: str) -> bool:
        try:
            write_model_folder(self.model, self._upload, self.target.repository, self.target.licence)
            epoch = read_manifest(self.model).epoch
            self._address = push_folder(self._upload, self.target, f"Best model, epoch {epoch}", self._api)
            document = {"repository": self.target.repository, "weights": identity, "address": self._address}
            write_atomically(self._record, json.dumps(document, indent=1))
        except (CheckpointError, OSError) as error:
            # The folder was replaced by a better model meanwhile, or the disk is full.
            self._failed(HubError(str(error), lasting=False), identity)
            return False
        except HubError as error:
            self._failed(error, identity)
            return False
        self._pushed = identity
        self._problem, self._failures = None, 0
        self._next = time.monotonic() + self._every
        self._say(f"Pushed the best model, epoch {epoch}, to {self._address}")
        return True

    def _failed(self, error: HubError, identity: str) -> None:
        self._problem = error
        wait = min(self._first_wait * 2**self._failures, LONGEST_WAIT_SECONDS)
        wait = max(wait, error.retry_after or 0.0)
        self._failures += 1
        self._next = time.monotonic() + wait
        if error.lasting:
            self._given_up_on = identity
        again = "when there is a better one, and at the end" if error.lasting else f"in {wait:,.0f} s"
        self._say(
            f"WARNING: the best model could not be pushed to {self.target.repository}: {error}. Training goes on; the "
            f"push is tried again {again}."
        )

    def _identity(self) -> str | None:
        """Checksum of the best model's weights; None while there is no best model."""
        try:
            return read_manifest(self.model).files[WEIGHTS_FILE][1]
        except (CheckpointError, KeyError):
            return None

    def _read_record(self) -> tuple[str | None, str]:
        """Weights that are in the repository already, and the address of their commit."""
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None, ""
        if record["repository"] != self.target.repository:
            return None, ""
        return record["weights"], record["address"]
