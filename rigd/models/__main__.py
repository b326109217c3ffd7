"""`python -m rigd.models` runs rig-models without an installation."""

import sys

from rigd.models.cli import main

sys.exit(main())
