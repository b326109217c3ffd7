"""`python -m rigd.models` is rig-models where it is not installed."""

import sys

from rigd.models.cli import main

sys.exit(main())
