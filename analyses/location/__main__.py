"""`python -m analyses.location`."""

import sys

from analyses.location import main

if __name__ == "__main__":
    sys.exit(main())
