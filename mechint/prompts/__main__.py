"""`python -m mechint.prompts`: write the rendered files of the packaged prompt sets."""

import sys

from mechint.prompts.sets import main

if __name__ == "__main__":
    sys.exit(main())
