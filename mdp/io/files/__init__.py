"""Bytes in, bytes out, nothing trusted: files whole or not at all, zip archives, images, MATLAB files, YAML."""
