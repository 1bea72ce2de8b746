"""How the program is called, and what is said when a word of it is wrong: spelling, environment, command line."""
