"""CIFAR-10 in tiles: bits/dim against the speed at which the trained model samples, as measured.

A split of s draws the pixels of s² tiles in one call, given the past either independently, as published, or with one
mixture indicator for all of them. Two objectives: the leaderboard ranks by bits/dim, and the trials that no other beats
in both are the front, in a table of its own and in `pt.pareto(frame, search.objectives)`. A trial stops at a rung where
another was better by 0.05 bits/dim and samples no slower. Speeds compare on one kind of device alone.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune import Budget, Pareto, Resources, SearchSpace, TrialConfig

search = SearchSpace(
    title="split gated PixelCNN on CIFAR-10: tiles, their coupling, mixtures, layers, channels",
    base=TrialConfig.build(
        {
            "data": {"name": "cifar10", "download": True},
            "model": {
                "family": "gated",
                "layers": 10,
                "channels": 128,
                "kernel_size": 5,
                "dropout": 0.1,
                "colour_order": "likelihood",
                "split": 2,
            },
            "likelihood": {"name": "logistic_mixture", "mixtures": 10},
            "optim": {"lr": 1e-3, "warmup": 0.01, "ema": 0.9995, "clip": 5000.0},
            "train": {"images": 3_200_000, "batch_size": 64, "report_every": 160_000, "eval_batch_size": 100},
        }
    ),
    vary={
        "likelihood.mixtures": IntDistribution(5, 20, log=True),
        "model.split": CategoricalDistribution((1, 2, 4)),
        "model.split_coupling": CategoricalDistribution(("independent", "mixture")),
        "model.layers": IntDistribution(6, 16),
        "model.channels": IntDistribution(64, 256, step=64),
        "optim.lr": FloatDistribution(3e-4, 3e-3, log=True),
    },
    objectives=("valid_bits_per_dim", "sample_images_per_second"),
    budget=Budget(trials=48),
    scheduler=Pareto(rungs=(640_000, 1_600_000), margin=0.05),
    resources=Resources(cpus=2, gpus=1),
)
