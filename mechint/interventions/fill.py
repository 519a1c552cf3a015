"""Phase one of a swap in two phases: one model fills caches on disk; phase two is `Filled`, read by another model.

The finetune fills, is freed, and only then is the base model loaded: a swap needs memory for one model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mechint.base.errors import StaleArtefactError, UsageError
from mechint.base.files import check_writable
from mechint.base.progress import Progress, counted
from mechint.base.signatures import checked
from mechint.chat.conversations import Conversation
from mechint.chat.render import Rendered, render_all
from mechint.interventions.fill_files import FillSource, Prefix, StoredPrefix, read_head, stored_files
from mechint.interventions.prefill import check_fits, check_readable, injected_positions, prefill
from mechint.interventions.specifications import CLEAN, Filled, Intervention, key_for
from mechint.models.model import Model
from mechint.models.row_memory import fitting_rows


@checked
def fill(
    model: Model,
    conversations: Conversation | Sequence[Conversation],
    directory: str | Path,
    intervention: Intervention = CLEAN,
    *,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
) -> Filled:
    """Fill the marked first turns of some conversations with `model`, one safetensors file for each distinct prefix.

    What `directory` has already, from the same weights, intervention and tokens, is checked and kept, so an interrupted
    call goes on where it stopped. `progress` is told of each prefix: how many conversations begin with it, and how many
    tokens were passed for it; True shows a bar. Prefixes are filled one by one; one that `max_memory` (that of `score`)
    has no room for is a MemoryLimitError before the first is filled. Returns the fill as an intervention for the model
    that is to read it.

    Raises ConversationError for marks that do not begin at the first message or have gaps, StaleArtefactError for a
    directory that something else has filled, OutputError, and what `prefill` raises.
    """
    listed = [conversations] if isinstance(conversations, Conversation) else list(conversations)
    if not listed:
        raise UsageError("no conversations", "one or more", "pass at least one")
    check_fits(model, intervention)
    rendered = render_all(model, listed)
    for item in rendered:
        model.backend.context.check(len(item.tokens), f"conversation {item.label!r}")
    prefixes = _distinct(rendered, intervention)
    source, folder = FillSource.of(model, key_for(model, intervention), causal=_causal(intervention)), Path(directory)
    _check_directory(folder, source)
    longest = max(prefixes, key=lambda prefix: len(prefix.tokens))
    fitting_rows(model, max_memory, len(longest.tokens), 1, f"conversation {prefixes[longest][0].label!r}")
    with counted(progress, "fill", len(listed), "conversation") as tell:
        for prefix, members in prefixes.items():
            stored = StoredPrefix(folder, source, prefix)
            missing = not stored.is_whole()
            if missing:
                stored.write(prefill(model, members[0], [intervention]).cache, model.name, intervention.name)
            if tell is not None:
                tell(len(members), len(prefix.tokens) if missing else 0)
    return Filled(folder)


def _distinct(rendered: Sequence[Rendered], intervention: Intervention) -> dict[Prefix, list[Rendered]]:
    """Return the conversations by their prefix, all of them checked."""
    prefixes: dict[Prefix, list[Rendered]] = {}
    for item in rendered:
        prefixes.setdefault(Prefix.of(item), []).append(item)
        check_readable(item, [intervention])
        for term in intervention.terms:
            injected_positions(item, term)
    return prefixes


def _causal(intervention: Intervention) -> bool:
    return all(term.segments is None for term in intervention.terms)


def _check_directory(directory: Path, source: FillSource) -> None:
    """Raise OutputError, or StaleArtefactError if something else has filled the directory."""
    check_writable(directory, "directory")
    for path in stored_files(directory):
        try:
            earlier, name = read_head(path)
        except StaleArtefactError:
            continue  # damaged: it is filled again if it is asked for
        if earlier != source:
            raise StaleArtefactError(
                given=f"{path} was filled by {name}",
                allowed="an empty directory, or one that the same model has filled under the same intervention",
                advice="fill into another directory",
            )
