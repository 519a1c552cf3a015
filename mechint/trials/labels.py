"""Labels that people give to replies: a file to which lines are added, every version kept, frozen by a hash.

A judge is measured against labels that were fixed before it was run. Published labels were edited after the judge's
verdicts had been seen, all towards it. So a label is a line that is never changed: a second opinion is another line,
`freeze` writes the hash of those that are there, and what comes later is counted as an edit.

    labels = LabelFile(Path("labels.jsonl"))
    labels.add(Label("9f3c..", claims="yes", named="the sea", claim_first=True, labeller="A"))
    labels.freeze()                       # labels.frozen.json
    labels.edits()                        # ids whose labels have changed since
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mechint.base.errors import StaleArtefactError, UsageError
from mechint.base.files import JSON, read_json, sha256, write_atomically
from mechint.trials.verdicts import CLAIMS, Claim, Verdict

QUESTIONS: tuple[str, ...] = ("claims", "named", "claim_first", "refused", "coherent")
_FROZEN = ".frozen.json"


@dataclass(frozen=True)
class Label:
    """What a person reads in a reply: the fields of a verdict, and who says so.

    `pass_no` counts independent readings of the same person; within one, the last line of an id is the label.
    `passes` is of a reader who knows what was injected, as published sets count it (`mechint.trials.passes`); None
    where nobody has said.
    """

    id: str
    claims: Claim
    named: str | None = None
    claim_first: bool | None = None
    refused: bool = False
    coherent: bool = True
    labeller: str = ""
    pass_no: int = 0
    note: str = ""
    passes: bool | None = None

    def __post_init__(self) -> None:
        if self.claims != "yes" and self.claim_first is not None:
            raise _malformed(f"label of {self.id}: an order of claim and name, but no claim", "claim_first null")

    def verdict(self) -> Verdict:
        """Return the label as a verdict, so that it has a class and can be compared."""
        return Verdict(self.claims, self.named, self.claim_first, self.refused, self.coherent)

    @classmethod
    def from_dict(cls, data: JSON, where: str) -> Label:
        """Return the label that a JSON object describes; raises UsageError, naming the place."""
        names = [field.name for field in fields(cls)]
        if not isinstance(data, dict) or not {"id", "claims"} <= set(data) <= set(names):
            raise _malformed(where, f"an object with id, claims and any of {', '.join(names[2:])}")
        for name, value in data.items():
            if not isinstance(value, _KINDS[name]):
                raise _malformed(f"{where}: {name} is {value!r}", "values of the types of a label")
        if data["claims"] not in CLAIMS:
            raise _malformed(f"{where}: claims is {data['claims']!r}", f"one of {', '.join(CLAIMS)}")
        return cls(**data)  # type: ignore[arg-type]  # each was checked above


@dataclass(frozen=True)
class LabelFile:
    """Labels in a file of JSON lines, oldest first; `path` need not exist yet."""

    path: Path

    def versions(self) -> list[Label]:
        """Return every label that was ever given, oldest first."""
        if not self.path.is_file():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [
            Label.from_dict(_parsed(line, self.path, n), f"{self.path}, line {n}") for n, line in enumerate(lines, 1)
        ]

    def current(self, pass_no: int = 0) -> dict[str, Label]:
        """Return the label of each id that counts: the last one of a reading."""
        return {label.id: label for label in self.versions() if label.pass_no == pass_no}

    def add(self, *labels: Label) -> None:
        """Add labels at the end; nothing that is there is touched."""
        earlier = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        lines = [json.dumps(_record(label), ensure_ascii=False) for label in labels]
        write_atomically(self.path, earlier + "".join(f"{line}\n" for line in lines))

    def freeze(self) -> str:
        """Fix the labels that are there and return their hash; raises UsageError if there is none.

        Frozen again, edits since the first time stay on record.
        """
        labels = self.versions()
        if not labels:
            raise UsageError(f"no labels in {self.path}", "a file with labels", "label some replies first")
        edited = sorted({*self.edits(), *self._earlier_edits()})
        digest = _digest(labels)
        record = {"labels": len(labels), "hash": digest, "edited": edited}
        write_atomically(self._frozen_path, json.dumps(record, indent=1) + "\n")
        return digest

    def frozen(self) -> dict[str, Label]:
        """Return the labels by id that were fixed, first readings only; none where nothing was.

        Raises StaleArtefactError if a line that was frozen is no more what it was.
        """
        count, digest, _ = self._frozen_record()
        labels = self.versions()[:count]
        if count and (len(labels) < count or _digest(labels) != digest):
            raise StaleArtefactError(
                given=f"{self.path}: labels differ from those that were frozen ({digest[:12]})",
                allowed="lines added after frozen ones, which stay as they are",
                advice="restore the file; a new opinion is a new line",
            )
        return {label.id: label for label in labels if label.pass_no == 0}

    def edits(self) -> list[str]:
        """Return the ids whose labels have changed since they were frozen."""
        fixed = self.frozen()
        later = {label.id: label for label in self.versions()[self._frozen_record()[0] :] if label.pass_no == 0}
        return sorted(key for key, label in later.items() if key in fixed and label.verdict() != fixed[key].verdict())

    def revised(self) -> list[str]:
        """Return the ids whose labels have ever changed after a freeze: a measurement on them has to say so."""
        return sorted({*self.edits(), *self._earlier_edits()})

    def version(self) -> str:
        """Return the hash of the labels that were frozen, "" where none were."""
        return self._frozen_record()[1]

    @property
    def _frozen_path(self) -> Path:
        return self.path.with_suffix(_FROZEN)

    def _earlier_edits(self) -> Sequence[str]:
        return self._frozen_record()[2]

    def _frozen_record(self) -> tuple[int, str, list[str]]:
        if not self._frozen_path.is_file():
            return 0, "", []
        record = read_json(self._frozen_path)
        if not isinstance(record, dict) or not isinstance(record.get("edited"), list):
            raise _malformed(str(self._frozen_path), "what LabelFile.freeze has written")
        count, digest, edited = record.get("labels"), record.get("hash"), record["edited"]
        if not isinstance(count, int) or not isinstance(digest, str) or not isinstance(edited, list):
            raise _malformed(str(self._frozen_path), "what LabelFile.freeze has written")
        return count, digest, [str(key) for key in edited]


_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "claims", "labeller", "note"), (str,)),
    **dict.fromkeys(("refused", "coherent"), (bool,)),
    "pass_no": (int,),
    "named": (str, type(None)),
    "claim_first": (bool, type(None)),
    "passes": (bool, type(None)),
}


def _record(label: Label) -> dict[str, object]:
    """Return a label as it is written: the hash of those that were frozen without `passes` stays what it was."""
    record = asdict(label)
    if label.passes is None:
        del record["passes"]
    return record


def _digest(labels: Sequence[Label]) -> str:
    return sha256(*(json.dumps(_record(label), sort_keys=True).encode() for label in labels))


def _parsed(line: str, path: Path, number: int) -> JSON:
    try:
        data: JSON = json.loads(line)
    except json.JSONDecodeError as error:
        raise _malformed(f"{path}, line {number}: broken JSON ({error.msg})", "one JSON object a line") from error
    return data


def _malformed(given: str, allowed: str) -> UsageError:
    return UsageError(given=given, allowed=allowed, advice="correct the labels; docs/trial-judges.md describes them")
