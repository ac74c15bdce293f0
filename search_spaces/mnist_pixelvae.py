"""Statically binarised MNIST with a PixelVAE: how much decoder, how much latent.

Every number is a bound, the ELBO; `pixeltune evaluate TRIAL --importance 1000` gives the tighter one that papers
publish as well. A decoder that needs no latent lets its KL fall to zero, and the bound still holds; `model.free_nats`
keeps a latent in use.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pixeltune import Asha, Budget, Resources, SearchSpace, TrialConfig

search = SearchSpace(
    title="PixelVAE on statically binarised MNIST: latent, encoder, decoder depth and width, KL warm-up",
    base=TrialConfig.build(
        {
            "data": {"name": "mnist", "download": True, "binarise": "static"},
            "model": {
                "family": "pixelvae",
                "layers": 8,
                "channels": 32,
                "kernel_size": 5,
                "latent_dim": 16,
                "encoder_channels": 32,
                "kl_warmup": 2_000,
            },
            "likelihood": {"name": "bernoulli"},
            "optim": {"lr": 1e-3, "schedule": "cosine", "ema": 0.999, "clip": 100.0},
            "train": {"images": 1_000_000, "batch_size": 50, "report_every": 50_000, "eval_batch_size": 200},
        }
    ),
    vary={
        "model.latent_dim": IntDistribution(4, 64, log=True),
        "model.latent_conditioning": CategoricalDistribution(("bias", "map")),
        "model.encoder_channels": CategoricalDistribution((16, 32, 64)),
        "model.kl_warmup": CategoricalDistribution((0, 2_000, 5_000)),
        "model.free_nats": FloatDistribution(0.0, 0.2),
        "model.layers": IntDistribution(2, 14),
        "model.channels": IntDistribution(16, 64, step=8),
        "optim.lr": FloatDistribution(3e-4, 4e-3, log=True),
    },
    budget=Budget(trials=48),
    # By the first rung, 6,000 steps, every warm-up is over.
    scheduler=Asha(rungs=(300_000, 500_000), reduction=3),
    resources=Resources(cpus=1, gpus=0.25),
)
