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


def check_push(repo: str | None, *, public: bool) -> None:
    """Refuse an upload that cannot succeed, before anything is written. Raises RunError.

    repo: ORG/NAME; None if nothing is uploaded. public: whether everyone may read it.
    """
    if repo is None:
        if public:
            raise RunError("--public: nothing is uploaded; give --push ORG/NAME too")
        return
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    if _NAME.fullmatch(repo) is None or _REFUSED.search(repo):
        raise RunError(
            f"--push {repo}: not a name on the hub; write ORG/NAME, or USER/NAME, of letters, "
            "digits, -, _ and ."
        )
    if get_token() is None:
        raise RunError(
            f"--push {repo}: there is no token of the hub; set HF_TOKEN, or run `hf auth login`"
        )
    api = HfApi()
    try:
        api.whoami()
        private = api.model_info(repo).private
    except RepositoryNotFoundError:  # it will be made
        return
    except Exception as error:  # of the network, or of the hub
        raise RunError(
            f"--push {repo}: the hub refuses it or does not answer ({_reason(error)}); nothing was "
            "written"
        ) from error
    if not private and not public:
        raise RunError(
            f"--push {repo}: is there already, and public; add --public, or give another name"
        )


def push_folder(folder: Path, repo: str, *, public: bool) -> str:
    """Upload an exported folder as a model repository; returns its URL.

    Raises RunError that says how to try again; the folder stays as it is.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        made = api.create_repo(repo, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, commit_message="Export of evomerge"
        )
    except Exception as error:
        visible = "" if public else " --private"
        again = f"hf upload {repo} {shlex.quote(str(folder))} .{visible}"
        raise RunError(
            f"{folder}: the export is whole, but was not uploaded to {repo} ({_reason(error)}); "
            f"try again with: {again}"
        ) from error
    return made.url


def _reason(error: Exception) -> str:
    """The kind of an error and its first sentence, without the hub's advice."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return one_line(f"{type(error).__name__}: {first}")[:300]
