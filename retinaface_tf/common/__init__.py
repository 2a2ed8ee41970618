"""Standard library only: files, imports, text and types that every part uses."""
