"""From the work stream to the instances: find work, fetch as much as can run, attempt, judge, write down, acknowledge.

`poller.py` finds lanes with work; a `feeder.py` per lane fetches (`pull.py`) and makes jobs; `job.py` and `item.py`
take one piece of work to its end; `invoke.py` is the attempt at an instance; `verdict.py` and `attempts.py` decide.
"""
