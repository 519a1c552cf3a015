"""`python -m analyses.published`."""

import sys

from analyses.published import main

if __name__ == "__main__":
    sys.exit(main())
