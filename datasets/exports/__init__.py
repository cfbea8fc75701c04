"""Exports: a published version in the formats that trainers and hubs read, checked before a byte is written."""
