"""ImageNet 64×64 in tiles with PixelCNN++: with four tiles an axis the network sees 16×16, and draws an image in 256
calls.

The images are downloaded by hand (image-net.org asks for an account): `train` and `valid` folders, `data.path` their
parent. The published split is `valid`, which is our test set; validation is carved from train.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune import Asha, Budget, Resources, SearchSpace, TrialConfig

search = SearchSpace(
    title="split PixelCNN++ on ImageNet 64×64: tiles, their coupling, blocks, filters, mixtures",
    base=TrialConfig.build(
        {
            "data": {"name": "imagenet64"},
            "model": {
                "family": "pixelcnnpp",
                "layers": 4,
                "channels": 160,
                "stages": 3,
                "dropout": 0.0,
                "split": 4,
            },
            "likelihood": {"name": "logistic_mixture", "mixtures": 10},
            "optim": {"lr": 1e-3, "warmup": 0.01, "ema": 0.9995, "clip": 20_000.0},
            "train": {"images": 6_400_000, "batch_size": 64, "report_every": 320_000, "eval_batch_size": 100},
        }
    ),
    vary={
        "likelihood.mixtures": IntDistribution(5, 20, log=True),
        "model.split": CategoricalDistribution((2, 4)),
        "model.split_coupling": CategoricalDistribution(("independent", "mixture")),
        "model.layers": IntDistribution(2, 6),
        "model.channels": IntDistribution(96, 192, step=32),
        "optim.lr": FloatDistribution(3e-4, 2e-3, log=True),
    },
    budget=Budget(trials=32),
    scheduler=Asha(rungs=(640_000, 1_920_000, 3_840_000), reduction=3),
    resources=Resources(cpus=2, gpus=1),
)
