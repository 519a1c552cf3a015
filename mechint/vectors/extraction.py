"""How a concept vector is extracted: by which method, read at which tokens, and against what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import product
from types import MappingProxyType

from mechint.base.errors import UsageError
from mechint.base.signatures import checked

METHODS = ("paired_pca", "mean_difference")
READS = ("reply", "concept", "message")
AGAINST = ("baseline", "others")
# Read as a text without a template, as one publication did: for comparison with it, and in none of `EXTRACTIONS`.
TEXT = "text"
_ALLOWED = {"method": METHODS, "read": (*READS, TEXT), "against": AGAINST}


@checked
@dataclass(frozen=True)
class Extraction:
    """One way to extract concept vectors; its text is "method/read/against", e.g. "mean_difference/concept/others".

    `read` says where the residual stream is read: "reply" at the last token of the prompt, where the reply begins or
    goes on; "concept" at the last token of the concept's own word in the user's message; "message" as the mean over
    the tokens of the user's message, without those that the template writes; "text" (mean differences alone) at the
    last token of one sentence, which is read as it is, without a template. `against` says what a concept's vector is
    a difference to: "baseline" prompts, or "others", the mean vector of other concepts. Raises UsageError for a value
    that is none of these, and for pairs of texts.
    """

    method: str = "paired_pca"
    read: str = "reply"
    against: str = "baseline"

    def __post_init__(self) -> None:
        for field in fields(self):
            value, allowed = getattr(self, field.name), _ALLOWED[field.name]
            if value not in allowed:
                raise UsageError(f"{field.name} {value!r}", ", ".join(allowed), "choose one of these")
        if (self.method, self.read) == ("paired_pca", TEXT):
            raise UsageError("paired_pca of a text", f"mean_difference/{TEXT}", "read pairs at the reply")

    @classmethod
    @checked
    def parse(cls, text: str) -> Extraction:
        """Return the extraction that a text names, or one of `PRESETS`.

        "mean_difference" is "mean_difference/reply/baseline". Raises UsageError for more than three words, and for
        words that are not allowed.
        """
        if text in PRESETS:
            return PRESETS[text]
        words = text.split("/")
        if len(words) > len(fields(cls)):
            raise UsageError(f"extraction {text!r}", ", ".join(map(str, EXTRACTIONS)), "choose one of these")
        return cls(*words)

    @property
    def name(self) -> str:
        """Its text, which `parse` reads back."""
        return f"{self.method}/{self.read}/{self.against}"

    def __str__(self) -> str:
        return self.name


EXTRACTIONS = tuple(Extraction(*values) for values in product(METHODS, READS, AGAINST))
# How published trial sweeps made their vectors: Lindsey (2025) before the reply to a message about the concept,
# open-introspection (2026) at the full stop of a sentence about it, as plain text. Sentences and words are our own.
PRESETS: Mapping[str, Extraction] = MappingProxyType(
    {
        "lindsey": Extraction("mean_difference", "reply", "baseline"),
        "open-introspection": Extraction("mean_difference", TEXT, "baseline"),
    }
)
