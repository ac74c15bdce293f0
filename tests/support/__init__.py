"""Helpers that tests share, and that benchmarks import too.

- Models: `model_kinds` and `model_combinations` list them, `pairwise` covers their pairs, `tiny_models` builds them,
  `planted_leaks` builds dishonest ones; `slow_nats` and `chi_square` judge their numbers.
- Data and trainings: `image_sets`, `config_strategies`, `tiny_trainings`.
- Results: `results` makes stores and rows, `row_strategies` draws any row, `made_up_search` and `long_search` write
  whole searches, `damage` spoils files, `report_pages` reads a report back.
- Searches without Ray: `toy_search`, `toy_final`.
- Whole commands: `commands` in this process, `launching` in one of its own, `noop` with trials that train nothing.
- Faults: `store_faults`, `ray_faults`, `fault_runner`; `harm` counts what they did.
- Machines: `optional` programs and packages, `imitated_windows`, `object_storage`, `metadata_service`, `hosts`,
  `own_machines`, `cluster_files`, `standing_head`, `loopback_cloud`, `strangers`.
"""
