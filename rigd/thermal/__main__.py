"""`python -m rigd.thermal` is rig-thermal where it is not installed."""

import sys

from rigd.thermal.cli import main

sys.exit(main())
