"""Data: problems with worked solutions, documents, and how they are packed."""
