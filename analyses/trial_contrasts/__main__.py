"""`python -m analyses.trial_contrasts`."""

import sys

from analyses.trial_contrasts import main

if __name__ == "__main__":
    sys.exit(main())
