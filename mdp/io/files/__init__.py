"""Bytes in, bytes out, nothing trusted: files whole or not at all, zip archives, images, MATLAB files, YAML.

Whatever a file holds, what comes out is checked data or one line that names the file; what is written is there whole.
"""
