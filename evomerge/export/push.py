"""The upload of an exported folder to the Hugging Face hub.

The token is read by huggingface_hub, from the environment or its own store. It is never an argument
here, and no message has it.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from evomerge.errors import RunError, one_line

_NAME = re.compile(r"(?=.{3,96}$)\w[\w.-]*/\w[\w.-]*", re.ASCII)
_REFUSED = re.compile(r"--|\.\.|[.-](/|$)|\.git$")
"""The hub's names, and what they may not have."""

_PASSING = (408, 425, 429)
"""Statuses below 500 that another try may not meet."""


class PushError(RunError):
    """An upload that the hub did not take.

    reason: what it said. passing: whether another try may succeed. taken: whether someone else has
    made a repository of this name, which had to be new.
    """

    def __init__(self, message: str, error: Exception, *, taken: bool = False) -> None:
        self.reason = _reason(error)
        self.passing = _may_pass(error)
        self.taken = taken
        super().__init__(message)


def is_repo(name: str) -> bool:
    """Whether a repository of the hub can have this name, ORG/NAME."""
    return _NAME.fullmatch(name) is not None and _REFUSED.search(name) is None


def has_token() -> bool:
    """Whether there is a token of the hub here."""
    from huggingface_hub import get_token

    return get_token() is not None


def check_push(repo: str | None, *, public: bool, own: bool = True) -> bool:
    """Refuse an upload that cannot succeed, before anything is written; whether it is there now.

    repo: ORG/NAME; None if nothing is uploaded. public: whether everyone may read it. own: whether
    a repository that is there already may be written to. Raises RunError.
    """
    if repo is None:
        if public:
            raise RunError("--public: nothing is uploaded; give --push ORG/NAME too")
        return False
    if not is_repo(repo):
        raise RunError(
            f"--push {repo}: not a name on the hub; write ORG/NAME, or USER/NAME, of letters, "
            "digits, -, _ and ."
        )
    if not has_token():
        raise RunError(
            f"--push {repo}: there is no token of the hub; set HF_TOKEN, or run `hf auth login`"
        )
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
    try:
        api.whoami()
        private = api.model_info(repo).private
    except RepositoryNotFoundError:  # it will be made
        return False
    except Exception as error:  # of the network, or of the hub
        raise PushError(
            f"--push {repo}: the hub refuses it or does not answer ({_reason(error)}); nothing was "
            "written",
            error,
        ) from error
    if not own:
        raise RunError(f"--push {repo}: is there already; give another name")
    if not private and not public:
        raise RunError(
            f"--push {repo}: is there already, and public; add --public, or give another name"
        )
    return True


def push_folder(folder: Path, repo: str, *, public: bool, new: bool = False) -> str:
    """Upload an exported folder as a model repository; returns its URL.

    new: whether there must be no such repository yet. Raises PushError that says how to try again;
    the folder stays as it is.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    made = None
    try:
        made = api.create_repo(repo, private=not public, exist_ok=not new)
        api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, commit_message="Export of evomerge"
        )
    except Exception as error:
        visible = "" if public else " --private"
        again = f"hf upload {repo} {shlex.quote(str(folder))} .{visible}"
        raise PushError(
            f"{folder}: the export is whole, but was not uploaded to {repo} ({_reason(error)}); "
            f"try again with: {again}",
            error,
            taken=made is None and _status(error) == 409,
        ) from error
    return made.url


def _may_pass(error: Exception) -> bool:
    """Whether it is of the network, or of a hub that is busy; not a refusal."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    status = _status(error)
    if status is not None:
        return status >= 500 or status in _PASSING
    return not isinstance(error, OfflineModeIsEnabled | ValueError)


def _status(error: Exception) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _reason(error: Exception) -> str:
    """The kind of an error and its first sentence, without the hub's advice."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return one_line(f"{type(error).__name__}: {first}")[:300]
