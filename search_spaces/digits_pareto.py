"""The smallest search of two objectives: bits/dim against parameters, of gated PixelCNNs on scikit-learn's digits.

Minutes on two cores. A trial stops at a rung where another was better by 0.05 bits/dim with no more parameters.
"""

from optuna.distributions import FloatDistribution, IntDistribution

from pixeltune import Budget, Pareto, SearchSpace, TrialConfig

search = SearchSpace(
    title="gated PixelCNN on 8×8 digits, bits/dim against parameters: layers, channels, mixtures, learning rate",
    base=TrialConfig.build(
        {
            "data": {"name": "digits"},
            "model": {"family": "gated", "layers": 4, "channels": 32, "kernel_size": 3, "dropout": 0.1},
            "likelihood": {"name": "logistic_mixture", "mixtures": 4},
            "optim": {"lr": 5e-3, "schedule": "cosine", "ema": 0.99, "clip": 100.0},
            "train": {"images": 16_000, "batch_size": 32, "report_every": 4_000},
        }
    ),
    vary={
        "likelihood.mixtures": IntDistribution(1, 8),
        "model.layers": IntDistribution(1, 6),
        "model.channels": IntDistribution(8, 48, step=8),
        "optim.lr": FloatDistribution(1e-3, 2e-2, log=True),
    },
    objectives=("valid_bits_per_dim", "num_parameters"),
    budget=Budget(trials=20),
    scheduler=Pareto(rungs=(4_000, 8_000), margin=0.05),
)
