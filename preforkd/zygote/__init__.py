"""The zygote: loads the application once and forks the workers."""
