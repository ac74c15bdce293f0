"""Statically binarised MNIST with a gated PixelCNN, next to the published nats.

The binarisation is our own draw from the grey levels (seed 0): the distribution of the published static set, another
draw of it, and marked so wherever the two meet.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune import Asha, Budget, Resources, SearchSpace, TrialConfig

search = SearchSpace(
    title="gated PixelCNN on statically binarised MNIST: depth, width, kernel, dropout, learning rate",
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
            },
            "likelihood": {"name": "bernoulli"},
            "optim": {"lr": 2e-3, "schedule": "cosine", "ema": 0.999, "clip": 100.0},
            "train": {"images": 1_000_000, "batch_size": 50, "report_every": 50_000, "eval_batch_size": 200},
        }
    ),
    vary={
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
