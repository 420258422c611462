"""What a kernel would do: conversions carried out step by step, under a chosen dialect and a chosen policy.

The engine is a generator of events and of questions to the users of pages; it does no input or output itself.
"""
