"""What every analysis is made of: options, questions, doses, subjects, resumed runs and their records.

The names below are what an analysis of one's own begins with; the rest is in the modules.
"""

from analyses.kit.analysis import Analysis, Drawn
from analyses.kit.command import Results
from analyses.kit.declarations import option
from analyses.kit.dose import Dose
from analyses.kit.facts import RunFacts
from analyses.kit.options import Common
from analyses.kit.questions import QuestionOptions
from analyses.kit.study import Condition, Group, Inputs, asking
from analyses.kit.subject import Subject

__all__ = [
    "Analysis",
    "Common",
    "Condition",
    "Dose",
    "Drawn",
    "Group",
    "Inputs",
    "QuestionOptions",
    "Results",
    "RunFacts",
    "Subject",
    "asking",
    "option",
]
