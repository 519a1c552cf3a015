"""`python -m analyses.kv_attribution`."""

import sys

from analyses.kv_attribution import main

if __name__ == "__main__":
    sys.exit(main())
