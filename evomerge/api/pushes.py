"""Uploads to the hub as a service makes them; `evomerge.export` has them as its `push`."""

from __future__ import annotations

from evomerge.export import PushError as PushError
from evomerge.export import check_push as check_push
from evomerge.export import has_token as has_token
from evomerge.export import is_repo as is_repo
from evomerge.export import push_folder as push_folder
