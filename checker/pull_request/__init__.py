"""One comment on a pull request, kept up to date: which pull request, which comment, whether to write, how to ask.

Nothing here can fail a run. What keeps a comment from being written is ``Unavailable``, where there is nothing to
comment on it is ``NotApplicable``; the command turns either into one line.
"""
