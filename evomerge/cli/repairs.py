"""The command `evomerge repair`: what can be read of a damaged record is saved."""

from __future__ import annotations

from evomerge.cli.endings import answering, say, say_json
from evomerge.cli.options import AsJson, RunDir


def repair(run_dir: RunDir, as_json: AsJson = False) -> None:
    """Save what can be read of a damaged record; `resume` then scores again what was lost."""
    with answering():
        from evomerge.api import repair as save

        found = save(run_dir)
        if as_json:
            say_json(found.to_json())
            return
        for line in found.lines():
            say(line)
