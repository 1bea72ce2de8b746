"""Starts a fuzzer: seeds, a dictionary and a place for what it finds, unless the command line says otherwise.

Imports nothing of the server: a fuzzer must be able to instrument those modules as they are imported.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

try:
    import atheris
except ImportError:
    raise SystemExit("error: atheris missing\nhint: pip install -e '.[fuzz]'") from None

FINDINGS = Path("artifacts/fuzz")


def fuzz(test_one: Callable[[bytes], None], seeds: Sequence[bytes], words: Sequence[bytes] = ()) -> None:
    """Run libFuzzer (https://llvm.org/docs/LibFuzzer.html#options) with the options of the command line.

    Given a file, it runs that input alone; given directories, the first also takes what is new.
    """
    arguments = list(sys.argv)
    paths = [argument for argument in arguments[1:] if not argument.startswith("-")]
    if not any(argument.startswith("-artifact_prefix=") for argument in arguments):
        FINDINGS.mkdir(parents=True, exist_ok=True)
        arguments.append(f"-artifact_prefix={FINDINGS}/")
    if not any(Path(path).is_file() for path in paths):
        # Not cleaned up on the way out: libFuzzer ends the process itself.
        place = Path(tempfile.mkdtemp(prefix="fuzz-"))
        (place / "seeds").mkdir()
        for number, seed in enumerate(seeds):
            (place / "seeds" / str(number)).write_bytes(seed)
        arguments.append(str(place / "seeds"))
        if words:
            (place / "words").write_text("".join(f'"{_escaped(word)}"\n' for word in words))
            arguments.append(f"-dict={place / 'words'}")
    atheris.Setup(arguments, test_one)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)
