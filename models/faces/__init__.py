"""Face detectors for drawn faces, and the crop box around a face."""
