"""``python -m preforkd`` is ``preforkd``."""

import sys

from preforkd.cli.preforkd import main

if __name__ == "__main__":
    sys.exit(main())
