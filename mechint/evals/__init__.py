"""Evaluations of what training changed, each with controls, intervals and the published estimator for comparison.

An evaluation asks a model through the engine, with the arguments of `mi.score`, or an oracle (`oracles`): a responder
without weights whose truth is planted, so that estimators are checked without a model. `detection` is whether steered
turns are told from clean ones, `first_tokens` what is really said there, `transfer` whether in other words too,
`multiple_choice` which of several it was, `battery` what the model says of itself and of other things, `multiturn` what
it says after a stated answer, `realtime` whether it names what is added beyond saying it anyway, `talk` how it replies
freely, `self_prediction` whether it foretells its own answers, `calibration` how often it gives each, `lengths` how
long they are, and `ability` what a training has cost. `Suite` asks a base and trainings from it.

`mi.evals` is this package. It imports floors up to `finetune`; only figures and the roof import it.
"""

from mechint.evals import length_oracles, oracles, reporting_oracles, self_oracles
from mechint.evals.ability import ability
from mechint.evals.ability_rates import ability_rates
from mechint.evals.battery import battery
from mechint.evals.calibration import calibration
from mechint.evals.calibration_rates import calibration_rates
from mechint.evals.coding import blinded, code_shares, coder_agreement, read_codes
from mechint.evals.detection import detection
from mechint.evals.detection_rates import clean_rates, detection_rates
from mechint.evals.distribution_sets import DistributionSets
from mechint.evals.first_tokens import first_tokens, token_shares
from mechint.evals.items import Items
from mechint.evals.length_prompts import LengthPrompts
from mechint.evals.length_rates import length_rates
from mechint.evals.lengths import lengths
from mechint.evals.multiple_choice import multiple_choice, multiple_choice_rates
from mechint.evals.multiturn import multiturn
from mechint.evals.naming_rates import naming_rates
from mechint.evals.realtime import realtime
from mechint.evals.responders import Oracle
from mechint.evals.self_items import SelfItems
from mechint.evals.self_prediction import self_prediction
from mechint.evals.self_rates import self_prediction_matrix, self_prediction_rates
from mechint.evals.stances import contrast, stances
from mechint.evals.suite import Suite
from mechint.evals.talk import judged, talk, talk_rates
from mechint.evals.talk_texts import TalkTexts
from mechint.evals.transfer import AskedIn, askings, transfer
from mechint.evals.turn_effects import turn_effects

__all__ = [
    "AskedIn",
    "DistributionSets",
    "Items",
    "LengthPrompts",
    "Oracle",
    "SelfItems",
    "Suite",
    "TalkTexts",
    "ability",
    "ability_rates",
    "askings",
    "battery",
    "blinded",
    "calibration",
    "calibration_rates",
    "clean_rates",
    "code_shares",
    "coder_agreement",
    "contrast",
    "detection",
    "detection_rates",
    "first_tokens",
    "judged",
    "length_oracles",
    "length_rates",
    "lengths",
    "multiple_choice",
    "multiple_choice_rates",
    "multiturn",
    "naming_rates",
    "oracles",
    "read_codes",
    "realtime",
    "reporting_oracles",
    "self_oracles",
    "self_prediction",
    "self_prediction_matrix",
    "self_prediction_rates",
    "stances",
    "talk",
    "talk_rates",
    "token_shares",
    "transfer",
    "turn_effects",
]
