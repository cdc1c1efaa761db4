"""Applications: how a target becomes a callable, and how each kind is called.

Theory of operation

``app.target`` is KIND:MODULE:ATTRIBUTE.  `preforkd.config.target` parses it in the process that reads the
settings, without an import.  `loader.load` imports the module and finds the attribute in the zygote, before
the first fork, so that all workers share the loaded application; for ``preforkd check --import`` it runs in
a process of its own.  With ``app.preload: false`` each worker loads it instead; `loading` has the steps that
are the same in both.  The master never imports any of this.  `signatures` then checks whether the object can
be called as its kind demands; it reads signatures, never calls the object, and passes what it cannot read.

Failures are sorted by blame: a name that does not exist is a `ConfigurationError`, code that raises is an
`ApplicationError` with the application's own traceback, and a lack of memory or descriptors is a
`SystemFailure`.

`hooks` finds the functions that preforkd calls at points of a process's life, and lists in which process
each of them runs; `warmup` calls functions and sends requests in the zygote, before the first fork.  An
exception of a hook is logged and changes nothing else, except that one in ``before_refork`` prevents the
refork.

In the worker, `wsgi` and `stream` turn one request or connection into one call: environ and response
(PEP 3333), or the handler and the close of its connection.  They get what they need as arguments, hold no
state, and import neither `preforkd.http` nor the worker: the loop decides, they call.  ASGI applications
are called by `preforkd.worker.asgi`.  `demo` is an application for a first start.
"""
