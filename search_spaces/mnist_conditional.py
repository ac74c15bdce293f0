"""Statically binarised MNIST, with the digit told to a gated PixelCNN and without.

A row that was told labels is no rival of an unconditional one: the comparison says so. Beside each other the rows show
what the label is worth. Of a `map`, part of the gain is not the label's: its features know their place in the image.
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
