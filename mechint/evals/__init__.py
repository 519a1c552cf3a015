"""Evaluations of what training changed, each with controls, intervals and the published estimator for comparison.

An evaluation asks a model through the engine, with the arguments of `mi.score`, or an oracle (`oracles`): a responder
without weights whose truth is planted, so that estimators are checked without a model. `detection` is whether steered
turns are told from clean ones, `transfer` whether in other words too, `battery` what the model says of itself and of
other things.

`mi.evals` is this package. It imports floors up to `finetune`; only figures and the roof import it.
"""

from mechint.evals import oracles
from mechint.evals.battery import battery
from mechint.evals.detection import detection
from mechint.evals.detection_rates import clean_rates, detection_rates
from mechint.evals.items import Items
from mechint.evals.responders import Oracle
from mechint.evals.stances import contrast, stances
from mechint.evals.transfer import AskedIn, askings, transfer

__all__ = [
    "AskedIn",
    "Items",
    "Oracle",
    "askings",
    "battery",
    "clean_rates",
    "contrast",
    "detection",
    "detection_rates",
    "oracles",
    "stances",
    "transfer",
]
