"""Wire formats of OpenAI's Live and Realtime protocols: what both share (events, ids, errors, audio in base64), and
what each has of its own. No IO, no sessions."""
