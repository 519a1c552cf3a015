"""`python -m analyses.model_swap`."""

import sys

from analyses.model_swap import main

if __name__ == "__main__":
    sys.exit(main())
