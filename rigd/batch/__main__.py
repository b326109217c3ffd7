"""`python -m rigd.batch` runs rig-batch without its launcher: as the service does."""

import sys

from rigd.batch.cli import main

sys.exit(main())
