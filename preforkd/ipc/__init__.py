"""Where the three processes meet: typed messages, channels and shared-memory slots."""
