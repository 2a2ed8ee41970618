"""Files, imports, text and types that all parts use. Standard library only."""
