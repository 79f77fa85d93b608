"""python -m gencourse train ...: the same as the command `gencourse`."""

import sys

from gencourse.scale.command import main

if __name__ == "__main__":
    sys.exit(main())
