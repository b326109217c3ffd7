"""`python -m rigd.backup` is rig-backup where it is not installed."""

import sys

from rigd.backup.cli import main

sys.exit(main())
