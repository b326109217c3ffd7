"""`python -m rigd.gateway` runs rig-keys without an installation."""

import sys

from rigd.gateway.cli import main

sys.exit(main())
