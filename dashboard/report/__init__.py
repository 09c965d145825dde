"""A run as one file that opens anywhere: `python -m dashboard report RUN -o report.html` (or .pdf).

command.py            the command line, and the errors it reports
contents.py           what a report contains, read from the store through the same modules as the pages
summary.py            the run in a few sentences
document.py           the HTML (report.html.jinja, report.css)
parts.py              tables of bounded size, the figures of the pages (report.js draws them), and incidents
output.py             the file, written completely or not at all: HTML, or a PDF by the system's Chromium
"""
