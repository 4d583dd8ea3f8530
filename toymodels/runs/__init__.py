"""Runs on disk: storage, identity, record, tidy table, mirror."""
