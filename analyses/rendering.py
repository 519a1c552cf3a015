"""Show the text that a model would read of a conversation file, with the turns that are steered marked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from analyses.kit import cli, option_types
from mechint.chat.conversations import load_conversations


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = cli.Parser(prog="python -m analyses.rendering", description=__doc__, allow_abbrev=False)
    options.add_argument("conversations", type=option_types.path, help="a conversation file or a directory of them")
    options.add_argument(
        "--model",
        type=option_types.location,
        default="organism",
        help="whose chat template; only its tokenizer is loaded",
    )
    options.add_argument("--limit", type=option_types.whole_number(1), help="how many conversations (default: all)")
    cli.add_template_options(options)
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Write the texts; returns the exit code."""

    def write() -> None:
        config = parser().parse_args(argv)
        chats = load_conversations(config.conversations)[: config.limit]
        from mechint.chat.render import render_all
        from mechint.models.loading import load_tokenizer
        from mechint.models.model_names import resolve

        tokenizer, _ = load_tokenizer(resolve(config.model))
        for rendered in render_all(tokenizer, chats, cli.template_options(config)):
            sys.stdout.write(f"{rendered}\n\n")

    return cli.guarded(write)


if __name__ == "__main__":
    sys.exit(main())
