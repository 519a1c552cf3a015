"""Every error a user can meet. Each says what was given, what is allowed, and what to do next."""

from __future__ import annotations


class MechintError(Exception):
    """Base of all errors that bad input causes; command lines turn it into one message and exit code 2."""

    def __init__(self, given: str, allowed: str, advice: str) -> None:
        """Build the message from `given` (what was found), `allowed` (what would do), `advice` (the next step)."""
        self.given, self.allowed, self.advice = given, allowed, advice
        super().__init__(f"{given}\n  allowed: {allowed}\n  to do:   {advice}")


class UsageError(MechintError):
    """An argument or option that cannot be used as given."""


class UnknownModelError(UsageError):
    """A model name that is neither an embedded organism, nor a checkpoint directory, nor a hub id that loads."""


class ModelValidationError(MechintError):
    """A loaded model that does not behave as a steerable, cacheable causal language model."""


class UnknownNameError(UsageError):
    """A name (prompt, info document, preset, column) that does not exist; nothing is ever picked instead."""


class UnknownConceptError(UnknownNameError):
    """A concept without a vector or without a place in the concept list."""


class LayerRangeError(UsageError):
    """Layers that are out of range, reversed, empty, or missing from a vector."""


class VectorMismatchError(MechintError):
    """A concept vector of another model: `d_model` or `n_layers` differ."""


class InvalidVectorError(MechintError):
    """A concept vector that holds NaN or infinite values, is zero, or has no layers."""


class TokenizationError(MechintError):
    """An answer that is not a single token, or two answers that are the same one."""


class ConversationError(UsageError):
    """A conversation file or object that does not follow the format."""


class ChatTemplateError(MechintError):
    """A chat template that is missing, rewrites earlier turns, or doubles the BOS token."""


class ReceiptError(MechintError):
    """A prefill that touched other layers, positions or rows than its intervention asked for."""


class NumericalError(MechintError):
    """Activations or logits that left what their dtype can hold: nothing that is read from them means anything."""


class HookError(MechintError):
    """Hooks that are live where none may be."""


class CacheMismatchError(MechintError):
    """KV caches whose layers, heads, positions or identity do not fit."""


class StaleArtefactError(MechintError):
    """A stored artefact that was made from other inputs than the ones at hand."""


class SwapError(MechintError):
    """Two models that cannot fill one cache: their tokenizers or cache shapes differ."""


class SAEMismatchError(UsageError):
    """A sparse autoencoder of another model, another hook point, or of a kind that cannot be used."""


class OutputError(UsageError):
    """A place that results cannot be written to."""


class MemoryLimitError(MechintError):
    """The device ran out of memory."""


class WorkerError(MechintError):
    """A worker process that failed again and again."""


class PrerequisiteError(MechintError):
    """An optional dependency that is not installed."""


class ChatTemplateWarning(UserWarning):
    """A chat template lacks something (a place for system messages, say); the message says what was done instead."""


class TokenizationWarning(UserWarning):
    """An answer token that the tokenizer would not produce right after the prompt."""


class VectorWarning(UserWarning):
    """A vector has something that its file format cannot hold."""


class ReachWarning(UserWarning):
    """Interventions that attention with a sliding window does not carry to where the answer is read."""


class FeatureWarning(UserWarning):
    """An SAE that is used outside of its training, or a verdict on features that too few concepts can carry."""
