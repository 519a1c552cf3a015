"""Concept vectors from a model's own activations, and controls for them.

`mean_difference` follows the trial sweeps of Lindsey (2025) and its replications: the activation of a prompt about the concept minus
the mean over neutral words. `paired_pca` is the method that repeng calls pca_center (Vogel, repeng, 2024; after Zou et al.,
arXiv 2310.01405): the first principal component of centred pairs of prompts that differ in the concept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.capture import check_layers, residuals
from mechint.chat import Conversation, Message
from mechint.errors import StaleArtefactError, SwapError, UsageError
from mechint.files import JSON, sha256
from mechint.model import Model
from mechint.prompt_design import PromptDesign
from mechint.render import render
from mechint.vectors import ConceptVector, load_cached

if TYPE_CHECKING:
    from mechint.prompt_design import Extraction

Method = Literal["paired_pca", "mean_difference"]
METHODS: tuple[Method, ...] = ("paired_pca", "mean_difference")

_BATCH = 32
