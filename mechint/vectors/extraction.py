"""How a concept vector is extracted: by which method, read at which tokens, and against what."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product

from mechint.base.errors import UsageError
from mechint.base.signatures import checked

METHODS = ("paired_pca", "mean_difference")
READS = ("reply", "concept", "message")
AGAINST = ("baseline", "others")
_ALLOWED = {"method": METHODS, "read": READS, "against": AGAINST}


@checked
@dataclass(frozen=True)
class Extraction:
    """One way to extract concept vectors; its text is "method/read/against", e.g. "mean_difference/concept/others".

    `read` says where the residual stream is read: "reply" at the last token of the prompt, where the reply begins or
    goes on; "concept" at the last token of the concept's own word in the user's message; "message" as the mean over
    the tokens of the user's message, without those that the template writes. `against` says what a concept's vector is
    a difference to: "baseline" prompts, or "others", the mean vector of other concepts. Raises UsageError for a value
    that is none of these.
    """

    method: str = "paired_pca"
    read: str = "reply"
    against: str = "baseline"

    def __post_init__(self) -> None:
        for field in fields(self):
            value, allowed = getattr(self, field.name), _ALLOWED[field.name]
            if value not in allowed:
                raise UsageError(f"{field.name} {value!r}", ", ".join(allowed), "choose one of these")

    @classmethod
    @checked
    def parse(cls, text: str) -> Extraction:
        """Return the extraction that a text names; "mean_difference" is "mean_difference/reply/baseline".

        Raises UsageError for more than three words, and for words that are not allowed.
        """
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
