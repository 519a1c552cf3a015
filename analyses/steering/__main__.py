"""`python -m analyses.steering`."""

import sys

from analyses.steering import main

if __name__ == "__main__":
    sys.exit(main())
