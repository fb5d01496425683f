"""The labelled record: its statistics, names, units and files."""
