"""The Ray-free part of a search: which trial comes next, what is known so far, and when to stop.

Read in this order:

    run                   `open_search` and `run_search`: the whole search from its files to its last line
    state                 `SearchState`: the rows and curves of all attempts, written as they change, and which trials
                          are resumed or tried again
    attempt               `TrialPlan` and `RunningAttempt`: one attempt from its plan to its row
    trial, messages       `run_trial`: what happens in the process of one attempt, and the messages that it sends
    searcher              `OptunaSearcher` and `FixedTrials`: which configuration comes next
    optuna_trials         how each outcome is reported to Optuna; `samplers`: its samplers; `warm_start`: other searches
    repeat_planning       which configuration is trained with another seed, before it counts as the best
    pruners               ASHA, median and Pareto: which trials stop early
    final                 choosing configurations and retraining them, with the test set read once a run
    trial_reference       the trial that SEARCH/TRIAL names, and its weights
    trial_metadata, trial_artifacts, verification     further columns of a row: model and machine, test set, coded bits
    checkpoint_retention  which trials keep their weights
    callbacks, progress   what a search calls as trials start, report and end, and the panel that prints it
    tracking, trackers    the callback that shows trials in TensorBoard, W&B and MLflow, and what each library needs

`run_search` is handed a `Backend`, which starts trials; the one for Ray is `pixeltune.cluster.ray_backend`.
"""
