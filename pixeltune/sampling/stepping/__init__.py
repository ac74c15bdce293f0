"""Any network, evaluated pixel after pixel."""

from pixeltune.sampling.stepping.stepper import Stepper

__all__ = ["Stepper"]
