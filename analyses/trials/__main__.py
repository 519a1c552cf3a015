"""`python -m analyses.trials`."""

import sys

from analyses.trials import main

if __name__ == "__main__":
    sys.exit(main())
