"""What the bundled model knows: what can be said to it and what it answers, its voice, and an ear for its replies."""
