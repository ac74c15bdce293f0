"""Dynamically binarised MNIST with a gated PixelCNN, on two CPU cores, to compare with published nats.

Trials are short. `pixeltune final mnist_dynamic_gated --top 1 --seeds 2 --images 1200000` retrains the best
configuration for longer, with the schedule stretched, on train + validation, and reads the test set.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune import Asha, Budget, Resources, SearchSpace, TrialConfig

search = SearchSpace(
    title="gated PixelCNN on dynamically binarised MNIST: depth, width, kernel, dropout, learning rate",
    base=TrialConfig.build(
        {
            "data": {"name": "mnist", "download": True, "binarise": "dynamic"},
            "model": {
                "family": "gated",
                "layers": 8,
                "channels": 32,
                "kernel_size": 5,
                "head_channels": 64,
            },
            "likelihood": {"name": "bernoulli"},
            "optim": {"lr": 3e-3, "schedule": "cosine", "warmup": 0.02, "ema": 0.999, "clip": 100.0},
            "train": {
                "images": 192_000,
                "batch_size": 32,
                "report_every": 32_000,
                "eval_batch_size": 200,
                "precision": "bfloat16",
            },
        }
    ),
    vary={
        "model.layers": IntDistribution(6, 12),
        "model.channels": IntDistribution(24, 40, step=8),
        "model.kernel_size": CategoricalDistribution((5, 7)),
        "model.dropout": FloatDistribution(0.0, 0.2),
        "optim.lr": FloatDistribution(1e-3, 8e-3, log=True),
    },
    budget=Budget(trials=12),
    scheduler=Asha(rungs=(32_000, 96_000), reduction=3),
    resources=Resources(cpus=1),
)
