"""`python -m analyses.calibration`."""

import sys

from analyses.calibration import main

if __name__ == "__main__":
    sys.exit(main())
