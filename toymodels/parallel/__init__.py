"""Work on several processes or threads."""
