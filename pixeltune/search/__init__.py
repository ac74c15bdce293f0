"""A search: Ray Tune runs trials, Optuna suggests them, Parquet remembers them. The only package that imports ray."""
