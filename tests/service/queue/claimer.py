"""A process that claims jobs and ends them at once, until none is left, and prints their ids."""

from __future__ import annotations

import sys

from evomerge.service.database.engine import open_database
from evomerge.service.queue import states
from evomerge.service.queue.claim import claim
from evomerge.service.queue.states import Ending
from evomerge.service.runner.identity import own_identity
from evomerge.service.settings import Limits


def main() -> None:
    database = open_database(sys.argv[1])
    me = own_identity()
    print("ready", flush=True)
    sys.stdin.readline()
    while (job := claim(database, me, Limits())) is not None:
        assert states.begin(database, job.id, job.claim, me) is not None
        ending = Ending(outcome="succeeded", result={"pid": me.pid})
        states.finish(database, job.id, job.claim, ending, backoff_s=0.0)
        print(job.id, flush=True)


if __name__ == "__main__":
    main()
