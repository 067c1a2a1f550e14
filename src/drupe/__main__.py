"""`python -m drupe` is `drupe`."""

import sys

from drupe.cli import main

sys.exit(main())
