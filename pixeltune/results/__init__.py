"""What a search stores, and how it is read and ranked.

schema                               every column: type, unit, meaning; `Status`; the Arrow schemas
parquet_io                           rows to bytes and back, strictly
table_folder, compaction             one table as a folder of files: attempts, merged files, quarantine
store, manifest, identity, lock      one search's folder, what search it is, and who may write to it
storage                              the storage of commands that name none
dataframes, optuna_study             the results as pandas tables and as an Optuna study
ranking                              what may be ranked, and in which order
repeats                              rows merged to one a configuration: means over seeds, with standard errors
budget_aims                          whether the target of a budget is reached, and trials without an improvement
stop_requests                        requests of other shells to stop a trial or a launch
search_status, forecast, overview    how far a search is, how long it will still take; all searches of a storage
live_table, live_search              a search that is watched while it runs, read again where its files changed
optuna_storage                       the searches of a storage as a storage of Optuna that is only read
final_selection, final_statistics    what a final retrains, and its test numbers with their errors
"""
