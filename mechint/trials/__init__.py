"""Trials: sampled replies of models that were steered or not, what judges read in them, and rates that carry errors.

A trial is one sampled reply with all that says what it is (`records`). A judge reads prompt and reply and nothing else
(`verdicts`); what a reply counts as is computed from its verdict and from what was done (`outcomes`). Rates and
declared contrasts of outcomes have intervals over concepts, with the judge's errors in them where those were counted.

`mi.trials` is this package. It imports `readouts` and what lies below it.
"""

from mechint.trials.browser import browser_page, write_browser
from mechint.trials.correction import Confusion, confusions, corrected_rates
from mechint.trials.design import Controls, Pilot, TrialDesign
from mechint.trials.detection import detection_table, roc_table
from mechint.trials.explaining import explain_pilot, explain_trials
from mechint.trials.grids import grid_table
from mechint.trials.importers import Imported, import_trials, integrity_report, published_rates
from mechint.trials.labelled import prediction_powered
from mechint.trials.language import language_table, load_phrases, phrase_rates, phrase_table
from mechint.trials.outcomes import CLASSES, outcome_table
from mechint.trials.pilot import dropped_trials, pilot_cells, pilot_note
from mechint.trials.plans import Contrast, read_plan, write_plan
from mechint.trials.prompts import TrialPrompts
from mechint.trials.rates import matches_of_others, rate_table
from mechint.trials.records import TrialKey, checked_trials
from mechint.trials.run import run_trials
from mechint.trials.scorecard import contrast_table
from mechint.trials.shifts import logit_shifts, readout_shifts
from mechint.trials.splitting import BestCell, best_cell
from mechint.trials.storage import checked_verdicts, read_trials, read_verdicts, write_trials, write_verdicts
from mechint.trials.verdicts import Item, Judge, Verdict, verdict_table

__all__ = [
    "CLASSES",
    "BestCell",
    "Confusion",
    "Contrast",
    "Controls",
    "Imported",
    "Item",
    "Judge",
    "Pilot",
    "TrialDesign",
    "TrialKey",
    "TrialPrompts",
    "Verdict",
    "best_cell",
    "browser_page",
    "checked_trials",
    "checked_verdicts",
    "confusions",
    "contrast_table",
    "corrected_rates",
    "detection_table",
    "dropped_trials",
    "explain_pilot",
    "explain_trials",
    "grid_table",
    "import_trials",
    "integrity_report",
    "language_table",
    "load_phrases",
    "logit_shifts",
    "matches_of_others",
    "outcome_table",
    "phrase_rates",
    "phrase_table",
    "pilot_cells",
    "pilot_note",
    "prediction_powered",
    "published_rates",
    "rate_table",
    "read_plan",
    "read_trials",
    "read_verdicts",
    "readout_shifts",
    "roc_table",
    "run_trials",
    "verdict_table",
    "write_browser",
    "write_plan",
    "write_trials",
    "write_verdicts",
]
