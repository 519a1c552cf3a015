"""`python -m analyses.controls`."""

import sys

from analyses.controls import main

if __name__ == "__main__":
    sys.exit(main())
