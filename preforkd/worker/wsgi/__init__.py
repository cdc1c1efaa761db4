"""The WSGI shell: an epoll loop that calls the application for one complete request at a time."""
