"""Findings and records in words, tables and JSON."""
