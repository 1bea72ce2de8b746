"""``python -m rtc_server.decoding FD``: the process that decodes. FD is a socket to the server."""

from __future__ import annotations

import socket
import sys

from rtc_server.system.child_process import answer_to_parent_alone


def main() -> None:
    """Deaf to what is meant for the server before anything is imported that takes its time."""
    answer_to_parent_alone()
    from rtc_server.decoding import nursery  # noqa: PLC0415

    nursery.run(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
