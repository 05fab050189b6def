"""The record of a search: an Optuna study plus the item results, in a run directory.

    RUN_DIR/
    ├── job.yaml             the job as it is run; written last, when all else is there
    ├── study.db             the Optuna study (or a PostgreSQL study, where the job names one)
    ├── items/KEY.parquet    what every item said of candidate KEY
    ├── events.jsonl         what happened and when, a line of JSON each; nothing reads it here
    ├── run.mark             says to who began it that it is theirs (see run_folder)
    └── run.lock             held by the one process that owns the directory

A trial is written in one transaction, after its item results, so a kill leaves either the whole
trial or none of it. All that is kept has a digest, which is checked where it is read.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
