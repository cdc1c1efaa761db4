"""The worker: accepts on the shared sockets and calls the application."""
