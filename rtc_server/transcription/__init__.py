"""From the tokens of a model that transcribes to words, turns, and transcripts of files and live speech."""
