"""`python -m rigd.thermal` runs rig-thermal without an installation."""

import sys

from rigd.thermal.cli import main

sys.exit(main())
