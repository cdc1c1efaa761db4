"""HTTP and stream servers side by side; see ../servers.py."""
