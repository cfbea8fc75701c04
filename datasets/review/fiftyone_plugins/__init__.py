"""The folder that FIFTYONE_PLUGINS_DIR points to. It must never lie in a top-level package called `plugins`."""
