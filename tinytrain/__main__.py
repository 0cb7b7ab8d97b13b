"""`python -m tinytrain`: the command line without an installed script."""

import sys

from tinytrain.cli import main

sys.exit(main())
