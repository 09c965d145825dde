"""A run as one file that opens anywhere: `python -m dashboard report RUN -o report.html` (or .pdf).

command.py     the command line, and what it refuses
story.py       what is told, read from the store through the same modules as the pages
summary.py     the run in a few sentences
document.py    the story as HTML (report.html.jinja, report.css)
still.py       a plotly figure as a still picture (scales.py, svg_paths.py, legend.py)
printing.py    HTML to PDF, by the system's Chromium
delivery.py    a file that is there whole or not at all
"""
