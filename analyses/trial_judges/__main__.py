"""`python -m analyses.trial_judges`."""

import sys

from analyses.trial_judges import main

if __name__ == "__main__":
    sys.exit(main())
