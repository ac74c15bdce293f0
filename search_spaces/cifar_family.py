"""CIFAR-10 across families: plain PixelCNN, gated PixelCNN and PixelCNN++ in one search.

Keys that only some families have are drawn only for those: kernels and the order of colours for the masked ones, stages
and the non-linearity for PixelCNN++. `model.layers` counts each family's own unit, blocks a stage in PixelCNN++, so the
range is one that makes networks of like cost of all three.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune import Asha, Budget, Resources, SearchSpace, TrialConfig

search = SearchSpace(
    title="families on CIFAR-10: pixelcnn, gated or pixelcnnpp, with the keys of each",
    base=TrialConfig.build(
        {
            "data": {"name": "cifar10", "download": True},
            "model": {"family": "pixelcnnpp", "layers": 3, "channels": 96, "stages": 3, "dropout": 0.3},
            "likelihood": {"name": "logistic_mixture", "mixtures": 10},
            "optim": {"lr": 1e-3, "warmup": 0.01, "ema": 0.9995, "clip": 5000.0},
            "train": {"images": 3_200_000, "batch_size": 64, "report_every": 160_000, "eval_batch_size": 100},
        }
    ),
    vary={
        "model.family": CategoricalDistribution(("pixelcnn", "gated", "pixelcnnpp")),
        "likelihood.name": CategoricalDistribution(("categorical", "logistic_mixture")),
        "likelihood.mixtures": IntDistribution(5, 20, log=True),
        "model.layers": IntDistribution(2, 8),
        "model.channels": IntDistribution(48, 192, step=48),
        "model.dropout": FloatDistribution(0.0, 0.5),
        "model.kernel_size": CategoricalDistribution((3, 5, 7)),
        "model.colour_order": CategoricalDistribution(("mask", "likelihood")),
        "model.stages": CategoricalDistribution((1, 2, 3)),
        "model.nonlinearity": CategoricalDistribution(("concat_elu", "elu")),
        "optim.lr": FloatDistribution(3e-4, 3e-3, log=True),
    },
    budget=Budget(trials=64),
    scheduler=Asha(rungs=(320_000, 960_000, 1_920_000), reduction=3),
    resources=Resources(cpus=2, gpus=1),
)
