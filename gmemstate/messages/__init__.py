"""What kernels, modules, firmware and VMMs print: patterns, their typed fields, who speaks."""
