"""`python -m analyses.layer_strength`."""

import sys

from analyses.layer_strength import main

if __name__ == "__main__":
    sys.exit(main())
