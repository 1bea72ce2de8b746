"""Translated rooms: who is in, what is said, in which languages it is needed, and what each member hears."""
