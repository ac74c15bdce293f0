"""Training without Ray: an iterator of reports around one state that is saved whole."""
