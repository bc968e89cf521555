"""What callers see of events: asynchronous calls, their results, `/events/`, `/hooks/`, and the admin's dead letters.

The request chain (`app.py`) finds the function and checks the caller, as for any call, and comes here instead of the
queue. Nothing here keeps anything: what was accepted is in JetStream.
"""
