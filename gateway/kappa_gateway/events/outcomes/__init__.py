"""Outcomes for receivers outside: kept as work in lanes of their own, and sent until a receiver takes them.

`address.py` says where one goes, `outbox.py` keeps it, `sending.py` is the job of one, `post.py` makes the request, and
`rules.py` says what an answer means.
"""
