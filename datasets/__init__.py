"""What is stored: sources, schemas, blobs, versions, ledger, decisions, review."""
