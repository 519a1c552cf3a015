"""Show the text that a model would read of a conversation file, with the turns that are steered marked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from analyses.kit import cli, declarations, option_types
from analyses.kit.declarations import option
from analyses.kit.options import TemplateUse
from mechint.chat.conversations import load_conversations


@dataclass(frozen=True, kw_only=True)
class Config(TemplateUse):
    """The options of this command; its conversations are its one argument."""

    model: str = option(
        "whose chat template; only its tokenizer is loaded", default="organism", parse=option_types.location
    )
    limit: int | None = option("how many conversations (default: all)", parse=option_types.whole_number(1))


def parser() -> declarations.Parser:
    """Return the command line's parser."""
    command = declarations.parser(Config, "analyses.rendering", __doc__ or "")
    command.add_argument("conversations", type=option_types.path, help="a conversation file or a directory of them")
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Write the texts; returns the exit code."""

    def write() -> None:
        values = vars(parser().parse_args(argv))
        chats = load_conversations(values.pop("conversations"))
        config = Config(**values)
        from mechint.chat.render import render_all
        from mechint.models.loading import load_tokenizer
        from mechint.models.model_names import resolve

        tokenizer, _ = load_tokenizer(resolve(config.model))
        for rendered in render_all(tokenizer, chats[: config.limit], config.template):
            sys.stdout.write(f"{rendered}\n\n")

    return cli.guarded(write)


if __name__ == "__main__":
    sys.exit(main())
