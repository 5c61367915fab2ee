"""Looks at the machine before an engine starts: what would fail, what would slow it, and what to do about it.

`facts/` gathers, one kind of facts a file, each within its time; `checks/` judges them and is pure.
"""
