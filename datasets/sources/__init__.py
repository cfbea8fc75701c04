"""Where raw pictures and metadata come from."""
