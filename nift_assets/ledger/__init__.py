"""The one door to teachers, auditors and judges: what is asked is written down first, what is answered is kept.

A request's key is the hash of everything that shapes the answer and of nothing else, so a stored answer is found again
from any run, back-fill or study, and is never paid for twice.
"""
