"""Prompt sets: the wording in a design file, and the conversations that it renders to.

`mi.prompts` is this package. It imports `base` and `chat`.
"""

from mechint.prompts.design import PromptDesign, available_sets
from mechint.prompts.sets import controls, first_turns, introspection, rendered_files

__all__ = ["PromptDesign", "available_sets", "controls", "first_turns", "introspection", "rendered_files"]
