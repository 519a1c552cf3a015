"""`python -m analyses.finetuning`."""

import sys

from analyses.finetuning import main

if __name__ == "__main__":
    sys.exit(main())
