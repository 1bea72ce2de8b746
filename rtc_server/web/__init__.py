"""What stands in front of every HTTP handler: TLS, limits of connections, access control, the form of errors."""
