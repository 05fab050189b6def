"""`python -m evomerge.service.runner` runs the one attempt that its standard input orders."""

from __future__ import annotations

from evomerge.startup import begin_loading

begin_loading()

from evomerge.service.runner.attempt import main  # noqa: E402
from evomerge.service.runner.work import WORK  # noqa: E402

main(WORK)
