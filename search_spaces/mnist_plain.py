"""MNIST's 256 grey levels with the plain stack of masked convolutions that most tutorials train."""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune import Asha, Budget, Resources, SearchSpace, TrialConfig

search = SearchSpace(
    title="plain PixelCNN on MNIST with 256 grey levels: depth, width, kernel, likelihood, learning rate",
    base=TrialConfig.build(
        {
            "data": {"name": "mnist", "download": True},
            "model": {
                "family": "pixelcnn",
                "variant": "simple",
                "layers": 8,
                "channels": 64,
                "kernel_size": 7,
                "first_kernel_size": 7,
                "head_channels": 0,
                "batch_norm": True,
            },
            "likelihood": {"name": "categorical"},
            "optim": {"lr": 1e-3, "schedule": "cosine", "ema": 0.999, "clip": 1000.0},
            "train": {"images": 1_000_000, "batch_size": 50, "report_every": 50_000, "eval_batch_size": 200},
        }
    ),
    vary={
        "likelihood.name": CategoricalDistribution(("categorical", "logistic_mixture")),
        "likelihood.mixtures": IntDistribution(2, 16, log=True),
        "model.layers": IntDistribution(4, 12),
        "model.channels": IntDistribution(32, 128, step=16),
        "model.kernel_size": CategoricalDistribution((3, 5, 7)),
        "optim.lr": FloatDistribution(2e-4, 5e-3, log=True),
    },
    budget=Budget(trials=40),
    scheduler=Asha(rungs=(100_000, 250_000, 500_000), reduction=3),
    resources=Resources(cpus=1, gpus=0.25),
)
