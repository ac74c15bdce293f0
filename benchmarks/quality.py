"""Bits/dim against seconds of training, for optimisers and schedules: what the defaults of the searches rest on.

    uv run benchmarks/quality.py --data FOLDER         # of Parquet files, such as a CIFAR-10 folder's

Same network, images and machine; variants in turn, seed after seed, so that a machine that slows down slows them all.
Each run is a small network's short one: it ranks settings for searches of small budgets, not for a million steps.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from statistics import mean
from typing import Any

import torch

from pixeltune.config import TrialConfig
from pixeltune.machine import cpu_name
from pixeltune.training.epoch_report import EpochReport
from pixeltune.training.loop import fit

BASE: dict[str, Any] = {
    "model": {
        "family": "gated",
        "layers": 3,
        "channels": 32,
        "kernel_size": 3,
        "split": 4,
        "colour_order": "likelihood",
    },
    "likelihood": {"name": "logistic_mixture", "mixtures": 5},
    "optim": {"lr": 3e-3, "ema": 0.99},
}
WARM_COSINE = {"optim.schedule": "cosine", "optim.warmup": 0.05}
VARIANTS: dict[str, dict[str, Any]] = {
    "constant": {},
    "constant, warm-up": {"optim.warmup": 0.05},
    "cosine": {"optim.schedule": "cosine"},
    "cosine, warm-up": WARM_COSINE,
    "cosine, warm-up, lr 1e-3": WARM_COSINE | {"optim.lr": 1e-3},
    "cosine, warm-up, lr 1e-2": WARM_COSINE | {"optim.lr": 1e-2},
    "cosine, warm-up, betas 0.95, 0.9995": WARM_COSINE | {"optim.beta1": 0.95, "optim.beta2": 0.9995},
    "cosine, warm-up, AdamW 0.01": WARM_COSINE | {"optim.weight_decay": 0.01},
    "exponential 0.999995 a step, betas 0.95, 0.9995": {
        "optim.schedule": "exponential",
        "optim.beta1": 0.95,
        "optim.beta2": 0.9995,
    },
    "constant, lr 1e-2": {"optim.lr": 1e-2},
    "constant, in bfloat16": {"train.precision": "bfloat16"},
}


def main() -> None:
    """Print a table row a variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="FOLDER")
    parser.add_argument("--images", type=int, default=50_048)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runs: dict[str, list[list[EpochReport]]] = {name: [] for name in VARIANTS}
    for seed in range(options.seeds):
        for name in VARIANTS:
            runs[name].append(list(fit(_config(options, seed, VARIANTS[name]))))
            last = runs[name][-1][-1]
            print(f"seed {seed}, {name}: {last.valid_bits_per_dim:.4f} after {last.train_seconds:.0f} s", flush=True)
    print(f"\n{datetime.now(UTC):%Y-%m-%d}, {cpu_name()}, {options.threads} thread, {options.images:,} images:\n")
    quarters = range(len(runs["cosine"][0]))
    print(f"| variant | {' | '.join(f'after {share + 1}/4' for share in quarters)} | seeds at the end | raw | s |")
    print(f"|---|{'---|' * len(quarters)}---|---|---|")
    for name, curves in runs.items():
        shares = [f"{mean(curve[share].valid_bits_per_dim for curve in curves):.4f}" for share in quarters]
        ends = [curve[-1] for curve in curves]
        seeds = ", ".join(f"{end.valid_bits_per_dim:.3f}" for end in ends)
        raw, seconds = mean(end.valid_bits_per_dim_raw for end in ends), mean(end.train_seconds for end in ends)
        print(f"| {name} | {' | '.join(shares)} | {seeds} | {raw:.4f} | {seconds:.0f} |")


def _config(options: argparse.Namespace, seed: int, changes: dict[str, Any]) -> TrialConfig:
    tree = BASE | {
        "data": {"name": "parquet", "path": options.data, "num_valid": 500},
        "train": {
            "images": options.images,
            "batch_size": 32,
            "report_every": options.images // 4,
            "precision": "float32",
        },
        "seed": seed,
    }
    return TrialConfig.build(tree).override(changes)


if __name__ == "__main__":
    main()
