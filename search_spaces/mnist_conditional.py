"""Statically binarised MNIST with a gated PixelCNN, given the digit's label and without it.

A row with labels is not comparable with an unconditional one, and the comparison says so. The difference of the two is
what the label gains; with `map`, part of it comes from positions: its features differ between places of the image.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune import Asha, Budget, Resources, SearchSpace, TrialConfig

search = SearchSpace(
    title="class-conditional gated PixelCNN on binarised MNIST: labels, depth, width, kernel, dropout",
    base=TrialConfig.build(
        {
            "data": {"name": "mnist", "download": True, "binarise": "static"},
            "model": {
                "family": "gated",
                "layers": 6,
                "channels": 32,
                "kernel_size": 5,
                "head_channels": 32,
                "dropout": 0.1,
                "conditioning": "bias",
            },
            "likelihood": {"name": "bernoulli"},
            "optim": {"lr": 2e-3, "schedule": "cosine", "ema": 0.999, "clip": 100.0},
            "train": {"images": 1_000_000, "batch_size": 50, "report_every": 50_000, "eval_batch_size": 200},
        }
    ),
    vary={
        "model.conditioning": CategoricalDistribution(("none", "bias", "map")),
        "model.layers": IntDistribution(4, 14),
        "model.channels": IntDistribution(16, 96, step=8),
        "model.kernel_size": CategoricalDistribution((3, 5, 7)),
        "model.dropout": FloatDistribution(0.0, 0.5),
        "optim.lr": FloatDistribution(3e-4, 6e-3, log=True),
    },
    budget=Budget(trials=40),
    scheduler=Asha(rungs=(100_000, 250_000, 500_000), reduction=3),
    resources=Resources(cpus=1, gpus=0.25),
)
