"""Logs: where records, access-log entries and the output of children go, and the events with a catalog entry."""
