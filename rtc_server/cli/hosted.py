"""The command line for a process that starts it: ``python -m rtc_server.cli.hosted`` ends with what started it."""

from __future__ import annotations

import sys

from rtc_server.cli.main import main
from rtc_server.system.child_process import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    sys.exit(main())
