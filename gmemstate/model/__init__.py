"""What is true: units, events, machines and the memory they fold into.

Nothing in this room does input or output, reads a clock or draws a random number.
"""
