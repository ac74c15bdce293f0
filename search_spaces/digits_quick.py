"""Handwritten digits of scikit-learn: the whole tool in under three minutes on two cores."""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune import Asha, Budget, SearchSpace, TrialConfig

search = SearchSpace(
    title="gated PixelCNN on 8×8 digits with 17 grey levels: depth, width, likelihood, dropout",
    base=TrialConfig.build(
        {
            "data": {"name": "digits"},
            "model": {"family": "gated", "layers": 4, "channels": 32, "kernel_size": 3, "dropout": 0.25},
            "likelihood": {"name": "categorical"},
            "optim": {"lr": 3e-3, "schedule": "cosine", "ema": 0.99, "clip": 100.0},
            "train": {"images": 16_000, "batch_size": 32, "report_every": 4_000},
        }
    ),
    vary={
        "likelihood.name": CategoricalDistribution(("categorical", "logistic_mixture")),
        "likelihood.mixtures": IntDistribution(2, 8),
        "model.layers": IntDistribution(2, 6),
        "model.channels": IntDistribution(16, 48, step=8),
        "model.dropout": FloatDistribution(0.0, 0.5),
        "optim.lr": FloatDistribution(5e-4, 1e-2, log=True),
    },
    budget=Budget(trials=16),
    scheduler=Asha(rungs=(4_000, 8_000), reduction=2),
)
