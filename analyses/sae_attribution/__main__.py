"""`python -m analyses.sae_attribution`."""

import sys

from analyses.sae_attribution import main

if __name__ == "__main__":
    sys.exit(main())
