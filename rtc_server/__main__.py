"""``python -m rtc_server`` is ``rtc-server``."""

import sys

from rtc_server.cli import main

sys.exit(main())
