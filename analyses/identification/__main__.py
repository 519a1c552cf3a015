"""`python -m analyses.identification`."""

import sys

from analyses.identification import main

if __name__ == "__main__":
    sys.exit(main())
