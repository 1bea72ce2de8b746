"""Frameworks for voice agents, whose packages hold back ours: an environment of their own.

``python -m tests.foreign.agents`` makes it ahead of time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lab import environments
from tests.support.missing import skip_but_in_ci

ENVIRONMENT: Final = Path(__file__).parent.parent.parent / ".venv-agents"
"""Beside the project's own, and not among the tests: what walks through those must not find it."""
REQUIREMENTS: Final = ("pipecat-ai==1.14.0", "livekit-plugins-openai==1.8.9")


def need_agents() -> Path:
    """The environment's Python. Skips the test, or in CI fails it, where there is none."""
    if not environments.holds(ENVIRONMENT, REQUIREMENTS):
        reason = f"needs {', '.join(REQUIREMENTS)} in an environment of their own (make clients makes it)"
        skip_but_in_ci(reason)
    return environments.python_in(ENVIRONMENT)


if __name__ == "__main__":
    print(environments.make(ENVIRONMENT, REQUIREMENTS))
