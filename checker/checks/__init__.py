"""The checks: pure functions from facts to findings, one family a file. A check that yields no finding has passed."""
