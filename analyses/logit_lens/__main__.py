"""`python -m analyses.logit_lens`."""

import sys

from analyses.logit_lens import main

if __name__ == "__main__":
    sys.exit(main())
