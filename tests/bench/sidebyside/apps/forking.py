"""bjoern and fastwsgi have no workers of their own: they are forked here, as their documents say.

python forking.py bjoern|fastwsgi PORT WORKERS MODULE:ATTRIBUTE
"""

import importlib
import os
import sys


def main() -> None:
    """Serve until killed."""
    server, port, workers, target = sys.argv[1:]
    module, _, attribute = target.partition(":")
    application = getattr(importlib.import_module(module), attribute)
    if server == "bjoern":
        import bjoern

        bjoern.listen(application, "127.0.0.1", int(port))
        for _ in range(int(workers) - 1):
            if os.fork() == 0:
                break
        bjoern.run()
    else:
        import fastwsgi

        fastwsgi.server.init(application, "127.0.0.1", int(port), 0)
        for _ in range(int(workers) - 1):
            if os.fork() == 0:
                break
        fastwsgi.server.run()


if __name__ == "__main__":
    main()
