"""``python -m come_nav`` is the same as ``come-nav``."""

import sys

from come_nav.cli.main import main

sys.exit(main())
