"""Charts, sheets of images and pieces of HTML, and the style of all pages.

`charts.py` draws curves for pages and for files, `sheet.py` what all pictures of images are made of; `html.py` makes
whole pages in `page.css`.
"""
