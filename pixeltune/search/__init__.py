"""A search: what is tried next, what is known, and when it stops. Ray-free; `pixeltune.tune` runs the trials.

In the order in which to read them:

- `run`: a search from its files to its end, and the protocols of a backend.
- `state`: what is known of every trial; each change is stored at once. `attempt`: a plan, and an attempt that runs.
- `searcher`, `samplers`, `optuna_trials`, `warm_start`: what is tried next. `pruners`: which trials stop early.
- `trial`: one attempt in its own process, and `messages`: what it sends. `trial_metadata`, `trial_artifacts` and
  `verification` fill its row.
- `final`: which trials are retrained. `checkpoint_retention`: which weights are kept.
- `callbacks`, `progress`: what the user sees meanwhile.
"""
