"""One conversion, step by step, as the kernel of a dialect carries it out."""
