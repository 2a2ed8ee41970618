"""Ready-made models: a folder each, with architecture, weights, provenance and licence."""
