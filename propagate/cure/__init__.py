"""From findings to changes: advice, and a repair that is measured again."""
