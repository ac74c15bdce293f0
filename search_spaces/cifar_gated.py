"""CIFAR-10 with a gated PixelCNN: layers, channels, mixture count and split count.

Colours are ordered by masks or left to a joint likelihood, softmax or mixture. A split of s draws s² pixels in one
network call: the leaderboard ranks by bits/dim, and `sample_images_per_second` in a row says how fast it samples.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune import Asha, Budget, Resources, SearchSpace, TrialConfig

search = SearchSpace(
    title="gated PixelCNN on CIFAR-10: layers, channels, mixtures, split, kernel, colour order, likelihood",
    base=TrialConfig.build(
        {
            "data": {"name": "cifar10", "download": True},
            "model": {
                "family": "gated",
                "layers": 12,
                "channels": 96,
                "kernel_size": 5,
                "head_channels": 256,
                "dropout": 0.1,
                "colour_order": "likelihood",
            },
            "likelihood": {"name": "logistic_mixture", "mixtures": 10},
            "optim": {"lr": 1e-3, "warmup": 0.01, "ema": 0.9995, "clip": 5000.0},
            "train": {"images": 6_400_000, "batch_size": 64, "report_every": 160_000, "eval_batch_size": 100},
        }
    ),
    vary={
        "likelihood.name": CategoricalDistribution(("categorical", "logistic_mixture")),
        "likelihood.mixtures": IntDistribution(3, 20, log=True),
        "model.colour_order": CategoricalDistribution(("mask", "likelihood")),
        "model.layers": IntDistribution(6, 20),
        "model.split": CategoricalDistribution((1, 2, 4)),
        "model.channels": IntDistribution(48, 240, step=48),
        "model.kernel_size": CategoricalDistribution((3, 5, 7)),
        "model.dropout": FloatDistribution(0.0, 0.5),
        "optim.lr": FloatDistribution(2e-4, 3e-3, log=True),
    },
    budget=Budget(trials=64),
    scheduler=Asha(rungs=(320_000, 960_000, 2_880_000), reduction=3),
    resources=Resources(cpus=2, gpus=1),
)
