"""Words and numbers that others print, explained: pure functions and tables, no input or output.

Every table names the file or manual that its figures come from. A word without such a source is not explained.
"""
