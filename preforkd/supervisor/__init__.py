"""The master: owns the sockets and the processes and never loads application code."""
