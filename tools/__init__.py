"""What is done to the project, not by it."""
