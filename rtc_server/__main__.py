"""``python -m rtc_server``: runs ``rtc-server``, or says in one sentence what to install."""

import sys

from rtc_server.usage import invocation


def main() -> int:
    try:
        from rtc_server.cli.main import main as run  # noqa: PLC0415 - without its packages it cannot be imported
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "rtc_server"):
            raise
        print(f"error: The package {package} is not installed.", file=sys.stderr)
        print(f"hint: {invocation.how_to_set_up()}", file=sys.stderr)
        return 1
    return run()


if __name__ == "__main__":
    sys.exit(main())
