"""`python -m analyses.dose`."""

import sys

from analyses.dose import main

if __name__ == "__main__":
    sys.exit(main())
