"""Write `docs/models.md` from what `python -m benchmarks.architectures` has measured."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.architecture_rows import ARCHITECTURES, FAMILIES, SETTINGS, WRAPPERS
from benchmarks.common import RESULTS
from mechint.base.files import JSON, write_atomically

PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"
Line = Mapping[str, JSON]

_HEAD = """# Models

Will it work with my model, and are the numbers exact? This page is written by `python -m benchmarks.architectures`,
which makes a tiny random checkpoint of every causal language model that transformers {transformers} has, loads it as
`mi.load` loads yours (transformer-lens {lens}, float32, CPU), and compares with plain Hugging Face: one row, no
cache, vectors added by its own forward hooks.

- **exact**: score (clean, steered, one row at a time, read from a filled cache, left-padded in a batch), the logit
  lens at every layer, and a merged LoRA of every linear map against PEFT {peft} unmerged. The number is the largest
  difference in logits over all of these and all conversations; float32 rounding is about 1e-6 of the logits' spread.
- **refused**: `mi.load` (or the first call) says why in one message, before any number. Nothing is approximated.
- **not tried**: no small checkpoint of it can be made offline, or plain Hugging Face cannot be read layer by layer.

{exact} architectures are exact, {refused} are refused, {untried} were not tried. Every model is checked on load, and
refused if running it in steps, block by block or with an edit is not what running it whole is.
"""

_TEMPLATES = """A conversation of four messages in templates in the style of published ones. Exact means that every
message stands in its own span of tokens, and that the turns which are filled are those of the full rendering.
`mi.render(model, conversation)` shows the spans for your model.
"""


def page(result: Line) -> str:
    """Return the page of a result."""
    versions, lines = _mapping(result["versions"]), _lines(result["rows"])
    models = [line for line in lines if line["group"] in (ARCHITECTURES, WRAPPERS)]
    count = {status: sum(line["status"] == status for line in models) for status in ("exact", "refused", "not tried")}
    head = _HEAD.format(
        transformers=versions["transformers"],
        lens=versions["transformer-lens"],
        peft=versions["peft"],
        exact=count["exact"],
        refused=count["refused"],
        untried=count["not tried"],
    )
    settings = [line for line in lines if line["group"] == SETTINGS]
    parts = [
        head,
        "## Exact\n",
        _exact(line for line in models if line["status"] == "exact"),
        "## Settings\n",
        "Kinds of attention, positions and embeddings, each on one architecture that has it.\n",
        _settings(settings),
        "## Refused\n",
        _reasons(line for line in models if line["status"] == "refused"),
        "## Not tried\n",
        _reasons(line for line in models if line["status"] == "not tried"),
        *_wrong(line for line in lines if line["status"] == "wrong"),
        "## Chat templates\n",
        _TEMPLATES,
        _templates(_lines(result["templates"])),
    ]
    return "\n".join(parts)


def _mapping(value: JSON) -> Line:
    return value if isinstance(value, dict) else {}


def _lines(value: JSON) -> list[Line]:
    return [_mapping(line) for line in value] if isinstance(value, list) else []


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _exact(lines: Iterable[Line]) -> str:
    rows = [[f"`{line['label']}`", _family(line), worst(line), _adapter(line)] for line in lines]
    return _table(["`model_type`", "models", "largest difference, in logits", "LoRA"], rows)


def worst(line: Line) -> str:
    """Return the largest difference of a row as text; empty where there is none."""
    values = [float(str(value)) for value in _mapping(line["differences"]).values()]
    return f"{max(values):.1e}" if values else ""


def _adapter(line: Line) -> str:
    why = str(line["adapter_why"])
    return "exact" if not why else "not tried" if why.startswith("PEFT: ") else "refused"


def _family(line: Line) -> str:
    return FAMILIES.get(str(line["label"]), "")


def _settings(lines: Iterable[Line]) -> str:
    rows = [
        [str(line["label"]), f"`{line['model_type']}`", str(line["status"]), worst(line) or _plain(str(line["why"]))]
        for line in lines
    ]
    return _table(["", "on", "", "largest difference, in logits, or why"], rows)


def _reasons(lines: Iterable[Line]) -> str:
    """Return one row for each reason with all that it holds for."""
    by_reason: dict[str, list[str]] = {}
    for line in lines:
        family = f" ({_family(line)})" if _family(line) else ""
        by_reason.setdefault(_plain(str(line["why"])), []).append(f"`{line['label']}`{family}")
    rows = [[reason, ", ".join(models)] for reason, models in sorted(by_reason.items(), key=lambda item: -len(item[1]))]
    return _table(["why", "`model_type`"], rows)


# What messages say at length, or with numbers of the small model, in words that hold for all of a kind.
_WORDS = (
    (
        r".*layers of kind .*|.*recurrent or a hybrid \(.*",
        "recurrent or hybrid (Mamba, linear attention, convolutions): its layers keep a state that is no KV cache",
    ),
    (
        r"running block by block .* (transformer-lens \S+) does differ .*|a cached and an uncached run differ.*",
        "TransformerLens computes something else than transformers does",
    ),
    (r"TransformerLens cannot bridge it: ImportError: .*torchvision.*", "TransformerLens needs torchvision for it"),
    (r"TransformerLens cannot bridge it: .*", "TransformerLens fails at it, or says that it would leave a part out"),
    (r"\S+ without ln_final", "it has no final norm"),
    (r"its last \d+ layers have no keys.*", "its last layers use the keys and values of earlier layers"),
    (r"its KV cache holds 0 positions.*", "TransformerLens fills no KV cache for it"),
    (r".*: beyond, rotary positions of type \S+ (turn .*)", r"beyond the threshold rotary positions \1"),
    (r"a small model cannot be made: ImportError: .*timm.*", "it needs timm, which is not installed"),
    (r"a small model cannot be made: .*", "its configuration cannot be made small by the names of its sizes"),
    (r"plain Hugging Face cannot be read.*", "plain Hugging Face cannot be read layer by layer"),
    (r"thinking: the chat template has no switch for thinking", "it has no switch for thinking"),
)


def _plain(why: str) -> str:
    """Return a reason without the name of the class, which is that of the row, as text that is no markup."""
    _, cut, reason = why.partition(" cannot be used: ")
    text = reason if cut else why.removeprefix("it: ")
    for pattern, words in _WORDS:
        if match := re.fullmatch(pattern, text):
            text = match.expand(words)
            break
    return text.replace("<", "&lt;").replace("*", "\\*")


def _wrong(lines: Iterable[Line]) -> list[str]:
    rows = [[f"`{line['label']}`", worst(line), _plain(str(line["why"]))] for line in lines]
    return ["## Wrong\n", _table(["", "largest difference, in logits", "what"], rows)] if rows else []


def _templates(lines: Sequence[Line]) -> str:
    by_name: dict[str, list[Line]] = {}
    for line in lines:
        by_name.setdefault(str(line["template"]), []).append(line)
    rows = [[f"`{name}`", *(_template(line) for line in both)] for name, both in by_name.items()]
    return _table(["in the style of", "thinking off", "thinking on"], rows)


def _template(line: Line) -> str:
    return f"{line['status']}: {_plain(str(line['why']))}" if line["why"] else str(line["status"])


def main() -> None:
    """Write the page."""
    result = json.loads((RESULTS / "architectures.json").read_text(encoding="utf-8"))
    sys.stdout.write(f"{write_atomically(PAGE, page(result))}\n")


if __name__ == "__main__":
    main()
