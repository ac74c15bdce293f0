"""CIFAR-10 with PixelCNN++ around its reference network: depth, width, stages, mixtures, dropout.

Trial 0 is the network of the reference code, 160 filters and 53,659,080 parameters, with the published optimiser and a
clip far above its usual gradients. The published 2.92 bits/dim took some five days on eight GPUs, which `docs/recipes`
expresses; a trial here sees 96 epochs.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune import Asha, Budget, Resources, SearchSpace, TrialConfig

search = SearchSpace(
    title="PixelCNN++ on CIFAR-10: blocks, filters, stages, mixtures, dropout, learning rate",
    base=TrialConfig.build(
        {
            "data": {"name": "cifar10", "download": True},
            "model": {"family": "pixelcnnpp", "layers": 5, "channels": 160, "stages": 3, "dropout": 0.5},
            "likelihood": {"name": "logistic_mixture", "mixtures": 10},
            "optim": {
                "lr": 1e-3,
                "beta1": 0.95,
                "beta2": 0.9995,
                "schedule": "exponential",
                "decay": 0.999995,
                "ema": 0.9995,
                "clip": 5000.0,
            },
            "train": {"images": 4_320_000, "batch_size": 64, "report_every": 144_000, "eval_batch_size": 100},
        }
    ),
    vary={
        "likelihood.mixtures": IntDistribution(5, 20, log=True),
        "model.layers": IntDistribution(2, 6),
        "model.channels": IntDistribution(64, 192, step=32),
        "model.stages": CategoricalDistribution((2, 3)),
        "model.dropout": FloatDistribution(0.2, 0.6),
        "optim.lr": FloatDistribution(3e-4, 3e-3, log=True),
    },
    budget=Budget(trials=40),
    scheduler=Asha(rungs=(288_000, 864_000, 2_160_000), reduction=3),
    resources=Resources(cpus=2, gpus=1),
)
