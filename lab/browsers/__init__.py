"""Real browsers, driven from outside: how they are started, what they hear, what a page of theirs says and plays."""
