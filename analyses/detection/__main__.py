"""`python -m analyses.detection`."""

import sys

from analyses.detection import main

if __name__ == "__main__":
    sys.exit(main())
