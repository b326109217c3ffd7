"""`python -m rigd.backup` runs rig-backup without an installation."""

import sys

from rigd.backup.cli import main

sys.exit(main())
