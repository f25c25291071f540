"""Long-running checks, each a program of its own that prints a table; the suite runs short versions of them."""
