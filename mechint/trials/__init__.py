"""Trials: sampled replies of models that were steered or not, what judges read in them, and rates that carry errors.

A trial is one sampled reply with all that says what it is (`records`). A judge reads prompt and reply and nothing else
(`verdicts`); what a reply counts as is computed from its verdict and from what was done (`outcomes`). The floor imports
`readouts` and what lies below it.
"""
