"""`python -m mechint.finetune`: the recipes, and what training by them would consist of."""

import sys

from mechint.finetune.command import main

if __name__ == "__main__":
    sys.exit(main())
