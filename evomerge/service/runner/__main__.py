"""`python -m evomerge.service.runner` runs the one attempt that its standard input orders."""

from __future__ import annotations

from evomerge.service.runner.attempt import main
from evomerge.service.runner.work import WORK

main(WORK)
