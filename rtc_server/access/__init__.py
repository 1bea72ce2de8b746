"""Who may come in, and how often: keys and tokens, origins, addresses, host names, rates. Pure."""
