"""The control socket: the Varlink interface io.preforkd.Manager, its server and its client."""
