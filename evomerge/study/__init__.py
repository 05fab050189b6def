"""The record of a search: an Optuna study plus the item results, in a run directory.

    RUN_DIR/
    ├── job.yaml             the job as it is run; written last, after everything else
    ├── study.db             the Optuna study (or a PostgreSQL study, if the job names one)
    ├── items/KEY.parquet    the results of candidate KEY on every item
    ├── answers/KEY.parquet  the answers of candidate KEY, of baselines and finalists, to look at
    ├── events.jsonl         what happened and when, a line of JSON each; evomerge never reads it
    ├── run.mark             proves to the user who started the search that it is theirs
    └── run.lock             held by the one process that owns the directory

A trial is written in one transaction, after its item results, so a kill leaves either the whole
trial or none of it. Everything recorded has a digest, which is checked on reading.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
