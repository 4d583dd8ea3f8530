"""The best first layers known, cell by cell: their files, their proofs, and the search for better ones."""
