"""`python -m mechint.organisms.planted`: build `organism-planted`."""

import sys

from mechint.organisms.planted.planting import main

if __name__ == "__main__":
    sys.exit(main())
